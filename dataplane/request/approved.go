package request

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// harmless are headers that are another with each try of a request, or each client, and do
// not change what it does: when and on what way it came, and who would like which answer.
var harmless = []string{
	"Accept-Encoding", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "Cache-Control", "Date", "Dnt", "Grpc-Accept-Encoding", "Grpc-Timeout", "Pragma",
	"Priority", "Referer", "Sec-Gpc", "Sec-Websocket-Key", "Traceparent", "Tracestate", "Upgrade-Insecure-Requests", "User-Agent", "X-Amz-Date",
	"X-Amzn-Trace-Id", "X-Cloud-Trace-Context", "X-Correlation-Id", "X-Request-Id",
}

var harmlessPrefixes = []string{"Sec-Ch-", "Sec-Fetch-", "X-B3-"}

// Approved lists, as "name: value" and by name, the headers of a request that belong to what
// people approve: all that go on to the resource but the harmless. A secret one is told from
// others by a hash. What is not UTF-8 is quoted, for people are asked in text, and marked where no
// name can say so.
func Approved(forwarded http.Header) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(forwarded)) {
		if slices.Contains(harmless, name) || slices.ContainsFunc(harmlessPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		lower, secret := spelled(name)
		for _, v := range forwarded[name] {
			if name == "Prefer" {
				if v = furtherPreferences(v); v == "" {
					continue
				}
			}
			if secret {
				v = fmt.Sprintf("%s %.8x", redacted, sha256.Sum256([]byte(v)))
			}
			mark := ""
			if !utf8.ValidString(v) {
				mark, v = " (not UTF-8)", strconv.QuoteToASCII(v)
			}
			out = append(out, lower+mark+": "+oneLine(v))
		}
	}
	return out
}

// furtherPreferences leaves out of a value of Prefer how the client would rather wait, which
// says nothing of what is done; other preferences may, such as what becomes of duplicates.
func furtherPreferences(value string) string {
	all := strings.Split(value, ",")
	return strings.Join(slices.DeleteFunc(all, func(p string) bool {
		name, _, _ := strings.Cut(p, "=")
		name = strings.TrimSpace(name)
		return strings.EqualFold(name, "respond-async") || strings.EqualFold(name, "wait")
	}), ",")
}
