package mcp

import (
	"encoding/base64"
	"maps"
	"strings"
)

// newest is the newest version of the protocol that is understood. Since it there are no sessions,
// and each request says in its _meta what a session began with.
const newest = "2026-07-28"

// Members of _meta in which a request says who sends it.
const (
	versionKey      = "io.modelcontextprotocol/protocolVersion"
	clientKey       = "io.modelcontextprotocol/clientInfo"
	capabilitiesKey = "io.modelcontextprotocol/clientCapabilities"
)

func (m *Message) meta() map[string]any {
	meta, _ := m.Params["_meta"].(map[string]any)
	return meta
}

// Headers are those that say once more what a request is, which servers hold against it since
// 2026-07-28. There are none for a message that is of no such version.
func (m *Message) Headers() map[string]string {
	version, _ := m.meta()[versionKey].(string)
	if version == "" || !m.Request() {
		return nil
	}
	h := map[string]string{"Mcp-Protocol-Version": inHeader(version), "Mcp-Method": inHeader(m.Method)}
	if name, ok := m.Params[methods[m.Method].name].(string); ok && members[m.Method] != nil {
		h["Mcp-Name"] = inHeader(name)
	}
	return h
}

// inHeader is a value as it stands in such a header.
func inHeader(v string) string {
	const begin, end = "=?base64?", "?="
	odd := func(r rune) bool { return r < ' ' || r > '~' }
	if !strings.ContainsFunc(v, odd) && strings.TrimSpace(v) == v && (!strings.HasPrefix(v, begin) || !strings.HasSuffix(v, end)) {
		return v
	}
	return begin + base64.StdEncoding.EncodeToString([]byte(v)) + end
}

// forwarded is a message as it is sent on, but for the ids in it. What a client says that it can do
// for the server is left out, for the server is not let ask for it.
func forwarded(m *Message) Message {
	out := *m
	_, says := m.meta()[capabilitiesKey]
	if m.Method != "initialize" && !says {
		return out
	}
	if out.Params = maps.Clone(m.Params); out.Params == nil {
		out.Params = map[string]any{}
	}
	if m.Method == "initialize" {
		out.Params["capabilities"] = map[string]any{}
	}
	if says {
		meta := maps.Clone(m.meta())
		meta[capabilitiesKey] = map[string]any{}
		out.Params["_meta"] = meta
	}
	return out
}
