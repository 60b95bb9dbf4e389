package detect

import "bytes"

// A token is known by how it begins.
type token struct {
	prefix string
	least  int // bytes after the prefix
	kind   Kind
}

var allTokens = []token{
	{"AKIA", 16, CloudKey}, {"ASIA", 16, CloudKey}, {"ABIA", 16, CloudKey}, {"ACCA", 16, CloudKey}, // AWS
	{"AIza", 30, CloudKey}, {"ya29.", 20, CloudKey}, {"GOCSPX-", 20, CloudKey}, // Google
	{"LTAI", 16, CloudKey}, {"dop_v1_", 32, CloudKey}, {"doo_v1_", 32, CloudKey}, {"dor_v1_", 32, CloudKey}, {"HRKU-", 20, CloudKey},
	{"hvs.", 20, CloudKey}, {"hvb.", 20, CloudKey}, {"hvr.", 20, CloudKey}, // Vault
	{"ghp_", 30, Token}, {"gho_", 30, Token}, {"ghu_", 30, Token}, {"ghs_", 30, Token}, {"ghr_", 30, Token}, {"github_pat_", 22, Token},
	{"glpat-", 16, Token}, {"gldt-", 16, Token}, {"glrt-", 16, Token}, {"glptt-", 16, Token}, {"gloas-", 16, Token}, {"glcbt-", 16, Token},
	{"xoxb-", 10, Token}, {"xoxp-", 10, Token}, {"xoxa-", 10, Token}, {"xoxr-", 10, Token}, {"xoxs-", 10, Token}, {"xoxe-", 10, Token}, {"xoxe.", 10, Token}, {"xapp-", 10, Token},
	{"sk_live_", 16, Token}, {"rk_live_", 16, Token}, {"sk_test_", 16, Token}, {"rk_test_", 16, Token}, {"whsec_", 20, Token},
	{"sk-", 20, Token}, {"npm_", 30, Token}, {"pypi-", 16, Token}, {"rubygems_", 32, Token}, {"SG.", 20, Token}, {"dckr_pat_", 20, Token},
	{"shpat_", 32, Token}, {"shpss_", 32, Token}, {"shpca_", 32, Token}, {"glsa_", 32, Token}, {"glc_", 32, Token}, {"hf_", 30, Token},
	{"lin_api_", 32, Token}, {"figd_", 32, Token}, {"PMAK-", 24, Token}, {"NRAK-", 24, Token}, {"sntrys_", 32, Token}, {"ATATT3", 50, Token},
	{"tskey-", 16, Token}, {"AGE-SECRET-KEY-1", 40, Token},
	{"pst_", 16, PosternToken},
}

// token is the token or web token that begins at p.
func (t *tables) token(text []byte, p int) (Kind, int) {
	rest := text[p:]
	if t.jwt && bytes.HasPrefix(rest, []byte("eyJ")) {
		if n := webToken(rest); n > 0 {
			return JWT, p + n
		}
	}
	for i := range t.tokens {
		tok := &t.tokens[i]
		if len(rest) >= len(tok.prefix)+tok.least && rest[0] == tok.prefix[0] && string(rest[:len(tok.prefix)]) == tok.prefix {
			if n := run(rest); n >= len(tok.prefix)+tok.least {
				return tok.kind, p + n
			}
		}
	}
	return none, 0
}

// run is how long text is one of letters, digits, dashes, underscores and dots between.
func run(text []byte) int {
	n := 0
	for n < len(text) && (isAlnum(text[n]) || text[n] == '-' || text[n] == '_' || text[n] == '.') {
		n++
	}
	for n > 0 && text[n-1] == '.' {
		n--
	}
	return n
}

// webToken is the length of a JSON web token: a header, which is an object, and at least
// one more part, which may be empty where it is a key that is agreed on.
func webToken(text []byte) int {
	n := run(text)
	head := bytes.IndexByte(text[:n], '.')
	if head < 10 || bytes.IndexByte(text[head+1:n], '.') < 0 {
		return 0
	}
	return n
}
