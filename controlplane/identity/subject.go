package identity

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/posterngate/postern/pkg/postern"
)

const maxNameBytes = 200

// surface is where a token is shown.
type surface uint8

const (
	surfaceAPI surface = iota + 1
	surfaceData
	surfaceWeb
)

// audience is what a token of this issuer must be for.
func (p *people) audience(s surface) want {
	api, data := p.APIAudience, p.DataAudience
	w := want{is: api, client: p.APIClientID, never: data}
	if s == surfaceData {
		w = want{is: data, client: p.DataClientID, never: api}
	}
	if s == surfaceWeb {
		w = want{is: p.WebClientID, client: p.WebClientID, never: data}
	}
	if api == data && s != surfaceWeb {
		w.never = ""
	}
	w.hint = func(have []string) string {
		switch {
		case s == surfaceAPI && slices.Contains(have, data):
			return fmt.Sprintf("this is a token for listeners (%q); the API wants %q: run postern login", data, api)
		case s == surfaceData && slices.Contains(have, api):
			return fmt.Sprintf("this is a token for the API (%q); a listener wants %q: use what postern token prints", api, data)
		}
		return fmt.Sprintf("the token is for %.200q, and %q is wanted", have, w.is)
	}
	return w
}

// errAccess refuses an access token.
var errAccess = bad("this is an access token (typ at+jwt); an ID token is wanted")

// checkType refuses what some issuers sign with the same keys and audience as ID
// tokens, and tell apart in a claim alone. An access token is for listeners, from a person
// who had it from the client that is configured: any client of an issuer may ask for one.
func (p *people) checkType(t *token, s surface) error {
	switch typ, _ := t.claims["typ"].(string); strings.ToLower(typ) {
	case "refresh", "offline", "logout":
		return bad("this is a %s token, not an ID token", strings.ToLower(typ))
	}
	client, _ := t.claims["client_id"].(string)
	switch {
	case !t.access:
		return nil
	case s != surfaceData:
		return errAccess
	case client != p.DataClientID && client != p.DataAudience:
		return bad("the access token was issued to the client %.80q (claim client_id), not to %q", client, p.DataClientID)
	case client == t.claims["sub"]:
		return bad("the access token is the client's own, and no person's")
	}
	return nil
}

// subject is the person whom the claims name.
func (p *people) subject(claims map[string]any) (postern.Subject, error) {
	name, _ := claims[p.NameClaim].(string)
	if err := checkName(name); err != nil {
		return postern.Subject{}, bad("the token's claim %s, by which people are named here, %s", p.NameClaim, err)
	}
	sub := postern.Subject{Name: p.prefix + name, Claims: others(claims)}
	email, err := p.email(claims)
	switch {
	case err == nil:
		sub.Email = email
	case p.NameClaim == p.EmailClaim:
		return postern.Subject{}, bad("the token's e-mail address %s, and people are named by it here", err)
	default:
		delete(sub.Claims, p.EmailClaim) // nor is it one for who asks for the claim
	}
	if sub.Groups, err = p.groups(claims); err != nil {
		return postern.Subject{}, err
	}
	if sub.Actor, sub.Via, err = p.actors(claims); err != nil {
		return postern.Subject{}, err
	}
	sub.MFA = p.mfa(claims)
	return sub, nil
}

// email is the address that the claims give, where it is the subject's and could not be
// taken for another one: who asks for what stands behind the @ would be deceived by two.
func (p *people) email(claims map[string]any) (string, error) {
	email, _ := claims[p.EmailClaim].(string)
	verified, said := claims["email_verified"]
	text, _ := verified.(string) // as some issuers write it; whatever else is said is no yes
	local, domain, _ := strings.Cut(email, "@")
	odd := func(r rune) bool {
		return strings.ContainsRune(`@"<>()[]\,;:`, r) || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}
	switch {
	case said && verified != true && !strings.EqualFold(text, "true"):
		return "", fmt.Errorf("is not verified by issuer %s", p.URL)
	case email == "":
		return "", nil
	case !said && !p.EmailsVerified:
		return "", fmt.Errorf("comes without email_verified from issuer %s (emailsVerified in issuers lets it count)", p.URL)
	case local == "" || domain == "" || strings.ContainsFunc(local, odd) || strings.ContainsFunc(domain, odd):
		return "", fmt.Errorf("is not a single plain one")
	}
	return email, nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("is missing or no text")
	case len(name) > maxNameBytes:
		return fmt.Errorf("is longer than %d bytes", maxNameBytes)
	case strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("has characters that names must not have")
	}
	return nil
}

// groups reads the groups. Where there are several issuers each stands for its own
// alone: what one calls its group is never a group of another's. Where the issuer left them out because they are too many,
// the token is refused: no groups must never be taken for few groups.
func (p *people) groups(claims map[string]any) ([]string, error) {
	names, _ := claims["_claim_names"].(map[string]any)
	_, elsewhere := names[p.GroupsClaim]
	if has, _ := claims["hasgroups"].(bool); elsewhere || has {
		return nil, bad("issuer %s left this subject's groups out because they are too many for a token; let it send only the groups that this application needs", p.URL)
	}
	switch v := claims[p.GroupsClaim].(type) {
	case nil:
		return nil, nil
	case string:
		return []string{p.prefix + v}, nil
	case []any:
		var groups []string
		for _, g := range v {
			s, ok := g.(string)
			if !ok || s == "" {
				return nil, bad("the token's claim %s is not a list of names", p.GroupsClaim)
			}
			groups = append(groups, p.prefix+s)
		}
		return groups, nil
	}
	return nil, bad("the token's claim %s is not a list of names", p.GroupsClaim)
}

// maxActors bounds a chain of actors.
const maxActors = 8

// actors are who acts for the subject where the token was exchanged, and those who acted
// before: the claim act, which nests (RFC 8693, 4.1).
func (p *people) actors(claims map[string]any) (actor string, via []string, err error) {
	next, ok := claims["act"]
	var all []string
	for ; ok; next, ok = next.(map[string]any)["act"] {
		m, _ := next.(map[string]any)
		name, _ := m["sub"].(string)
		if err := checkName(name); err != nil {
			return "", nil, bad("the token's claim act.sub %s", err)
		}
		if all = append(all, p.prefix+name); len(all) > maxActors {
			return "", nil, bad("more than %d act for the token's subject, one for the other (claim act)", maxActors)
		}
	}
	if len(all) == 0 {
		return "", nil, nil
	}
	return all[0], all[1:], nil
}

// secondFactors are the methods of RFC 8176 that, beside a password, are a second factor.
var secondFactors = []string{"otp", "hwk", "swk", "sms", "tel", "sc", "fpt", "face", "iris", "retina", "vbm", "fido"}

// mfa reads the claims amr and acr. What is not said is no.
func (p *people) mfa(claims map[string]any) bool {
	if acr, _ := claims["acr"].(string); acr != "" && slices.Contains(p.MFAContexts, acr) {
		return true
	}
	methods, _ := claims["amr"].([]any)
	password, second := false, false
	for _, m := range methods {
		s, _ := m.(string)
		if s == "mfa" {
			return true
		}
		password = password || s == "pwd" || s == "pin"
		second = second || slices.Contains(secondFactors, s)
	}
	return password && second
}

// others are the claims that conditions may read: all but what only describes the token.
func others(claims map[string]any) map[string]any {
	out := make(map[string]any, len(claims))
	for k, v := range claims {
		switch k {
		case "iat", "nbf", "exp", "jti", "nonce", "at_hash", "c_hash", "s_hash", "sid", "_claim_names", "_claim_sources":
		default:
			out[k] = v
		}
	}
	return out
}
