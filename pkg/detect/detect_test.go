package detect

import (
	"errors"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/postern"
)

// set is everything, masked by a constant that names the kind.
func set(t testing.TB, kinds ...string) *Set {
	t.Helper()
	if len(kinds) == 0 {
		kinds = names[1:]
	}
	var rules []postern.DetectRule
	for _, k := range kinds {
		rules = append(rules, postern.DetectRule{Kind: k, Mask: &postern.MaskRule{Name: "m", Method: postern.MaskRedact, Value: "<" + k + ">"}})
	}
	s, err := Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func masked(s *Set, text string) string {
	out, _ := s.AppendMasked(nil, []byte(text))
	return string(out)
}

const (
	aJWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
	aKey = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\nQyNTUxOQAAACB+\n-----END OPENSSH PRIVATE KEY-----"
)

func TestMasked(t *testing.T) {
	s := set(t)
	for text, want := range map[string]string{
		"":                               "",
		"hello world":                    "hello world",
		"alice@example.com":              "<email>",
		"<alice@example.com>, next":      "<<email>>, next",
		"mail=alice.b+c@ex-ample.co.uk.": "mail=<email>.",
		"alice%40example.com&x":          "<email>&x",
		"a@b@example.com":                "a@<email>",
		"alice@localhost root@10.0.0.1":  "alice@localhost root@10.0.0.1",
		`"x\nalice@example.com\"`:        `"x\<email>\"`,
		"--alice@example.com--":          "--<email>--",
		"100%_alice@example.com":         "<email>",
		"card 4111 1111 1111 1111 12/28": "card <card> 12/28",
		"4111-1111-1111-1111":            "<card>",
		"4111111111111111":               "<card>",
		"12 4111111111111111 3 41 11":    "12 <card> 3 41 11",
		"4111111111111112":               "4111111111111112",
		`n=\n4111111111111111`:           `n=\n<card>`,
		"q=%204111111111111111":          "q=%20<card>",
		"378282246310005":                "<card>",
		"x4111111111111111":              "x4111111111111111",
		"DE89 3704 0044 0532 0130 00":    "<iban>",
		"DE89370400440532013000, ok":     "<iban>, ok",
		"gb82west12345698765432":         "<iban>",
		"DE89370400440532013001":         "DE89370400440532013001",
		"+49 (0)30 1234567":              "<phone>",
		"tel +1-212-555-0100.":           "tel <phone>.",
		"(212) 555-0100":                 "(<phone>",
		"212-555-0100":                   "<phone>",
		"0049 30 123456":                 "<phone>",
		"2125550100":                     "2125550100",
		"2026-11-25 20:45:01":            "2026-11-25 20:45:01",
		"2026-11-25T20:45:01.123456789Z": "2026-11-25T20:45:01.123456789Z",
		"10.0.0.1 192.168.100.200:8080":  "10.0.0.1 192.168.100.200:8080",
		"123-45-6789":                    "<us-ssn>",
		"666-45-6789 123456789":          "666-45-6789 123456789",
		"AB 12 34 56 C":                  "<uk-nino>",
		"AB123456C":                      "<uk-nino>",
		"12345678Z":                      "<es-dni>",
		"X1234567L":                      "<es-dni>",
		"RSSMRA85T10A562S":               "<it-cf>",
		"1 84 12 76 451 089 46":          "<fr-nir>",
		"44051401359":                    "<pl-pesel>",
		"529.982.247-25":                 "<br-cpf>",
		aJWT:                             "<jwt>",
		"Bearer " + aJWT + ", x":         "Bearer <jwt>, x",
		"eyJhbGciOiJub25lIn0":            "eyJhbGciOiJub25lIn0",
		"AKIAIOSFODNN7EXAMPLE":           "<cloud-key>",
		"id:AKIAIOSFODNN7EXAMPLE,":       "id:<cloud-key>,",
		"https://ghp_abcdefghijklmnopqrstuvwxyz0123456789@github.com": "https://<token>@github.com",
		"pst_abcdefghijklmnop0123456789":                              "<postern-token>",
		"ghp_short":                                                   "ghp_short",
		"DB_PASSWORD=hunter2":                                         "DB_PASSWORD=<password>",
		`{"password": "hunter 2", "a": 1}`:                            `{"password": "<password>", "a": 1}`,
		`{\"password\":\"hunter2\"}`:                                  `{\"password\":\"<password>\"}`,
		"Authorization: Bearer abc.def":                               "Authorization: Bearer <password>",
		"aws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCYEX=":   "aws_secret_access_key = <password>",
		"password: \nnext":                                            "password: \nnext",
		"the password is kept":                                        "the password is kept",
		aKey + "\nafter":                                              "<private-key>\nafter",
		"x " + aKey[:60]:                                              "x <private-key>",
		"KEY=" + aKey + "!":                                           "KEY=<private-key>!",
		`"private_key": "` + strings.ReplaceAll(aKey, "\n", `\n`) + `", 1`:                  `"private_key": "<private-key>", 1`,
		"-----BEGIN CERTIFICATE-----\nMIIB":                                                 "-----BEGIN CERTIFICATE-----\nMIIB",
		"PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\nAAA\nPrivate-MAC: 12\nafter": "<private-key>after",
		"日本 alice@example.com語":                                                             "日本 <email>語",
	} {
		if got := masked(s, text); got != want {
			t.Errorf("%q\n got %q\nwant %q", text, got, want)
		}
	}
}

// What is longer than a secret may be is hidden, but for rulers.
func TestTooLong(t *testing.T) {
	s := set(t)
	long := strings.Repeat("a0_", MaxWord)
	if got := masked(s, "x "+long+" y"); got != "x [hidden] y" {
		t.Errorf("a long word: %.80q", got)
	}
	if got := masked(s, "password="+strings.Repeat("%/", MaxWord)+" y"); got != "password=<password> y" {
		t.Errorf("a long value: %.80q", got)
	}
	ruler := strings.Repeat("-", 3*MaxWord) + " alice@example.com"
	if got := masked(s, ruler); got != strings.Replace(ruler, "alice@example.com", "<email>", 1) {
		t.Errorf("a ruler: %.80q", got)
	}
	endless := "-----BEGIN RSA PRIVATE KEY-----" + strings.Repeat("\nAAAAAAAA", maxBlock)
	if got := masked(s, endless); !strings.HasPrefix(got, "<private-key>") || len(got) > len(endless)-maxBlock+20 {
		t.Errorf("an endless key: %d of %d", len(got), len(endless))
	}
}

func TestCompile(t *testing.T) {
	redact := &postern.MaskRule{Name: "r", Method: postern.MaskRedact, Value: "*"}
	for _, rules := range [][]postern.DetectRule{
		nil, {{Kind: "mail", Mask: redact}}, {{Kind: "email"}}, {{Kind: "email", Mask: &postern.MaskRule{Method: postern.MaskToken}}}, {{Kind: "", Mask: redact}},
	} {
		if s, err := Compile(rules); err == nil || s != nil {
			t.Errorf("%v compiled", rules)
		}
	}
	if _, err := Compile(nil); !errors.Is(err, errEmpty) {
		t.Error(err)
	}
	s, err := Compile([]postern.DetectRule{
		{Kind: "secrets", Mask: redact}, {Kind: "jwt", Mask: &postern.MaskRule{Name: "n", Method: postern.MaskNull}},
		{Kind: "card", Mask: &postern.MaskRule{Name: "p", Method: postern.MaskPartial, KeepLast: 4}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := masked(s, "a "+aJWT+" AKIAIOSFODNN7EXAMPLE 4111 1111 1111 1111 alice@example.com"); got != "a  * ***************1111 alice@example.com" {
		t.Errorf("%q", got)
	}
	for _, name := range Names() {
		if err := Check(name); err != nil {
			t.Error(err)
		}
	}
	var zero Scanner
	if done, m := zero.Scan([]byte("alice@example.com"), true, nil); done == 0 || len(m) > 0 {
		t.Error("the zero Scanner")
	}
}
