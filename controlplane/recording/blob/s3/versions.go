package s3

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// versions deletes objects for good. Where a bucket keeps versions, as each must that locks
// objects, a deletion without a version hides the object behind a marker, and is allowed for one
// that is locked too: what was let go would be there for ever.
type versions struct {
	client *s3.Client
	bucket *string
	prefix string

	// kept is whether the bucket keeps versions, as it has shown: to ask it how it is set
	// up takes a right that nothing else needs.
	kept atomic.Bool
}

// delete deletes an object with all its versions, or says why not; that it is not there is no
// error. An object that is locked is still there afterwards, and not hidden.
func (v *versions) delete(ctx context.Context, name string) error {
	key := v.prefix + name
	if !v.kept.Load() {
		out, err := v.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: v.bucket, Key: &key})
		if err != nil || out.DeleteMarker == nil || !*out.DeleteMarker {
			return err
		}
		v.kept.Store(true)
	}
	var markers, data []*string
	pages := s3.NewListObjectVersionsPaginator(v.client, &s3.ListObjectVersionsInput{Bucket: v.bucket, Prefix: &key})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("the bucket keeps versions, which could not be listed (s3:ListBucketVersions): %w", err)
		}
		for _, m := range page.DeleteMarkers {
			if *m.Key == key {
				markers = append(markers, m.VersionId)
			}
		}
		for _, d := range page.Versions {
			if *d.Key == key {
				data = append(data, d.VersionId)
			}
		}
	}
	// Markers go first: what stays for its lock must not be hidden by the one that was just made.
	var errs []error
	for _, id := range append(markers, data...) {
		if _, err := v.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: v.bucket, Key: &key, VersionId: id}); err != nil {
			errs = append(errs, fmt.Errorf("the bucket keeps versions, one of which it does not delete (s3:DeleteObjectVersion): %w", err))
		}
	}
	return errors.Join(errs...)
}
