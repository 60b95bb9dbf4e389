// Package s3 opens Blobs in a bucket of Amazon S3, or of what speaks its API and knows
// conditional writes (If-None-Match), without which two replicas could overwrite each
// other's chunk.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	gocloud "gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"

	"github.com/posterngate/postern/controlplane/recording/blob"
)

// Config says where the bucket is. Bucket is required.
type Config struct {
	Bucket string
	Prefix string // before every name; empty, or ends with a slash
	Region string // empty: as AWS's own configuration says
	// Endpoint is the URL of a store that is not AWS; its buckets are paths.
	Endpoint string
	CA       string // PEM file that signs the endpoint's certificate; the system's where empty
	// CredentialsFile is in the form of AWS's shared credentials file, profile default;
	// empty is AWS's chain: environment, files, the role of the machine.
	CredentialsFile string
	// Retention is how long the store itself must keep each blob against everybody
	// (object lock, compliance mode); the bucket must allow it. 0 asks for nothing.
	Retention time.Duration
}

// Open opens the bucket, and finds out whether it can be reached.
func Open(ctx context.Context, c Config) (*blob.Bucket, error) {
	b, err := open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("blob: bucket %s: %w", c.Bucket, err)
	}
	return b, nil
}

func open(ctx context.Context, c Config) (*blob.Bucket, error) {
	client, err := client(ctx, c)
	if err != nil {
		return nil, err
	}
	bucket, err := s3blob.OpenBucket(ctx, client, c.Bucket, &s3blob.Options{RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired})
	if err != nil {
		return nil, err
	}
	if ok, err := bucket.IsAccessible(ctx); err != nil || !ok {
		if err == nil {
			err = errors.New("it does not exist, or these credentials may not use it")
		}
		return nil, errors.Join(err, bucket.Close())
	}
	if c.Prefix != "" {
		bucket = gocloud.PrefixedBucket(bucket, c.Prefix)
	}
	v := versions{client: client, bucket: &c.Bucket, prefix: c.Prefix}
	opts := blob.BucketOptions{Again: conflicting, Refused: refused, Delete: v.delete}
	if c.Retention > 0 {
		opts.BeforeWrite = func(as func(any) bool) error {
			var in *transfermanager.UploadObjectInput
			if !as(&in) {
				return errors.New("object lock cannot be set")
			}
			until := time.Now().Add(c.Retention)
			in.ObjectLockMode, in.ObjectLockRetainUntilDate = tmtypes.ObjectLockModeCompliance, &until
			// A locked object must come with its checksum.
			in.ChecksumAlgorithm = tmtypes.ChecksumAlgorithmCrc32c
			return nil
		}
	}
	return blob.NewBucket(bucket, opts), nil
}

func client(ctx context.Context, c Config) (*s3.Client, error) {
	var load []func(*config.LoadOptions) error
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		load = append(load, config.WithCustomCABundle(bytes.NewReader(pem)))
	}
	if c.Region != "" {
		load = append(load, config.WithRegion(c.Region))
	}
	if c.CredentialsFile != "" {
		load = append(load, config.WithSharedCredentialsFiles([]string{c.CredentialsFile}), config.WithSharedConfigFiles(nil))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, err
	}
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		if c.Endpoint != "" {
			o.BaseEndpoint, o.UsePathStyle = &c.Endpoint, true
		}
	}), nil
}

// conflicting reports whether two conditional writes of one name met.
func conflicting(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && (api.ErrorCode() == "ConditionalRequestConflict" || api.ErrorCode() == "OperationAborted")
}

// refused reports whether the store, or what stands before it, says that the object is too
// large. That it is forbidden says nothing of the object: the credentials may be what is wrong.
func refused(err error) bool {
	var api smithy.APIError
	var answer *smithyhttp.ResponseError
	return errors.As(err, &api) && api.ErrorCode() == "EntityTooLarge" ||
		errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusRequestEntityTooLarge
}
