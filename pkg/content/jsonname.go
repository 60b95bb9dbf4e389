package content

import (
	"hash/maphash"
	"unicode/utf8"

	"github.com/posterngate/postern/pkg/detect"
)

// fewMembers is how many names are looked through one by one.
const fewMembers = 16

// member takes the name that was read, in j.part, and shows it.
func (j *JSON) member(dst []byte, i int) ([]byte, error) {
	f := &j.frames[len(j.frames)-1]
	hash := maphash.Bytes(j.seed, j.part)
	if f.has(hash) {
		return dst, j.fail(i, "two members have one name")
	}
	if len(f.seen)+len(f.more) >= MaxMembers {
		return dst, j.over(i, "members", MaxMembers)
	}
	f.add(hash)
	if j.hide > 0 {
		return dst, nil
	}
	dst = append(dst, '"')
	if j.rule.set != nil {
		j.shown, _ = j.rule.set.AppendMasked(j.shown[:0], j.part)
		dst = appendQuoted(dst, j.shown)
	} else {
		dst = appendQuoted(dst, j.part)
	}
	dst = append(dst, '"')
	j.nodes = j.nodes[:j.from]
	if !j.rule.Fields() && j.rule.set == nil {
		return dst, nil
	}
	j.name = foldBytes(j.name[:0], j.part)
	if w := j.rule.names[string(j.name)]; w != nil {
		j.by = w
	} else if j.rule.set != nil && j.rule.set.NamesSecret(j.part) {
		j.by = j.rule.set.Writer(detect.Password)
	}
	if j.rule.paths != nil {
		j.step(f, j.name)
	}
	return dst, nil
}

// foldBytes appends a folded name.
func foldBytes(dst, name []byte) []byte {
	for _, b := range name {
		if b >= utf8.RuneSelf {
			return append(dst, fold(string(name))...)
		}
	}
	for _, b := range name {
		if b >= 'A' && b <= 'Z' {
			b += 'a' - 'A'
		}
		dst = append(dst, b)
	}
	return dst
}

func (f *frame) has(hash uint64) bool {
	for _, seen := range f.seen {
		if seen == hash {
			return true
		}
	}
	_, seen := f.more[hash]
	return seen
}

func (f *frame) add(hash uint64) {
	if len(f.seen) < fewMembers {
		f.seen = append(f.seen, hash)
		return
	}
	if f.more == nil {
		f.more = map[uint64]struct{}{}
	}
	f.more[hash] = struct{}{}
}
