package http

import "strings"

// plainLetters are those of words that programs are written with, and that say nothing of
// whom a request is about.
const plainLetters = "abcdefghijklmnopqrstuvwxyz-_"

// Shape is a path with a question mark for each part that is no plain word, and so may be a
// value.
func Shape(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if strings.Trim(p, plainLetters) != "" {
			parts[i] = "?"
		}
	}
	return strings.Join(parts, "/")
}

// Shape is what the request asks for without its values: the method that is called where it
// is a call of gRPC, whose names are a program's own, and else the Shape of its path.
func (f *Facts) Shape() string {
	if service, method, ok := strings.Cut(strings.TrimPrefix(f.Path, "/"), "/"); ok && f.GRPC() && identifier(service, ".") && identifier(method, "") {
		return f.Path
	}
	return Shape(f.Path)
}

// identifier reports whether s is a name of Protocol Buffers', in parts with separators
// between.
func identifier(s, separators string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && !strings.ContainsRune(separators, c) {
			return false
		}
	}
	return s != "" && (s[0] < '0' || s[0] > '9')
}
