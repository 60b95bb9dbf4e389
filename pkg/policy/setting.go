package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/posterngate/postern/pkg/sql"
)

// A settingRule says what is wrong with a value; empty means nothing. The value is as
// PostgreSQL would print it, without quotes.
type settingRule func(value string, t *task) string

// anyValue is the rule of settings of which every value is harmless, even one that is
// not known.
var anyValue settingRule

// settings are what a client may set: what changes neither the meaning of a statement
// nor who the session is, and costs the resource nothing. Whatever is not here is
// denied.
var settings = map[string]settingRule{
	"application_name":                    anyValue,
	"bytea_output":                        anyValue,
	"datestyle":                           isoDates,
	"default_transaction_deferrable":      anyValue,
	"default_transaction_isolation":       anyValue,
	"default_transaction_read_only":       only(isOn, "may only be turned on"),
	"client_encoding":                     only(isUTF8, "is always UTF8: texts must mean what the parser reads"),
	"client_min_messages":                 quietMessages,
	"extra_float_digits":                  anyValue,
	"idle_in_transaction_session_timeout": anyValue,
	"idle_session_timeout":                anyValue,
	"intervalstyle":                       anyValue,
	"jit":                                 anyValue,
	"lock_timeout":                        anyValue,
	"plan_cache_mode":                     anyValue,
	"standard_conforming_strings":         only(isOn, "is always on: literals must mean what the parser reads"),
	"statement_timeout":                   shorterTimeout,
	"timezone":                            anyValue,
	"transaction_timeout":                 anyValue,
}

// held are the settings that have one value for good: texts mean what the parser reads.
var held = map[string]bool{"client_encoding": true, "standard_conforming_strings": true}

// whyNot has reasons for settings that people ask for and do not get.
var whyNot = map[string]string{
	"search_path":              "it decides what names mean, and is held fixed",
	"role":                     "it decides who the session is",
	"session_authorization":    "it decides who the session is",
	"session_replication_role": "it turns triggers and constraints off",
	"row_security":             "it decides which rows there are",
	"work_mem":                 "memory of the resource is not the client's to give",
	"transform_null_equals":    "it changes what a comparison means",
	"backslash_quote":          "it changes what a literal means",
	"escape_string_warning":    "it changes what a literal means",
}

// shown are the settings that may be read beside the ones that may be set. The others
// may hold secrets, such as an application's own settings.
var shown = map[string]bool{
	"default_text_search_config": true, "in_hot_standby": true, "integer_datetimes": true, "is_superuser": true,
	"lc_collate": true, "lc_ctype": true, "lc_messages": true, "lc_monetary": true, "lc_numeric": true, "lc_time": true,
	"max_identifier_length": true, "max_index_keys": true, "search_path": true, "server_encoding": true,
	"server_version": true, "server_version_num": true, "session_authorization": true, "role": true,
	"transaction_deferrable": true, "transaction_isolation": true, "transaction_read_only": true,
}

// showable are all settings that may be read, by name.
func showable() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(settings)), maps.Keys(shown))
	slices.Sort(names)
	return slices.Compact(names)
}

// resets are the commands that take a setting, or every one, back to where the session began;
// pools send them. What the engine started the session with is where it began, so that
// nothing that is held fixed changes. DISCARD ALL also does SET SESSION AUTHORIZATION
// DEFAULT, which is a RESET too: the session is again the account that logged in, and no longer the role that
// this account may have acted for since. That widens nothing: what was leased is that
// account and its rights, it could take such a role and leave it all along, and what the
// session may do is decided here, statement by statement, whoever it is there.
var resets = map[string]bool{
	"RESET": true, "RESET ALL": true, "DISCARD ALL": true, "DISCARD PLANS": true, "DISCARD SEQUENCES": true, "DISCARD TEMP": true, "DISCARD TEMPORARY": true,
}

// setting judges SET, RESET, SHOW and DISCARD.
func (t *task) setting(st *sql.Statement, r *resource) *refusal {
	name := strings.ToLower(st.Setting)
	if st.Verb == sql.Show {
		return t.show(name, "SHOW "+name)
	}
	if resets[strings.ToUpper(st.Command)] {
		return nil
	}
	rule, no := t.settable(name, "SET "+name)
	if no != nil {
		return hinted(no, r.pins[name])
	}
	if pin, pinned := r.pins[name]; pinned && name != "client_encoding" && !strings.EqualFold(pin, st.Value) {
		return t.noSetting("SET "+name, "the resource holds it fixed at "+strconv.Quote(pin))
	}
	return t.value(rule, name, "SET "+name, st.Value)
}

// hinted names what a setting that may not be set is held at, where it is.
func hinted(no *refusal, pin string) *refusal {
	if pin != "" {
		no.hint = "leave it out, or name the one that it is held at: " + pin
	}
	return no
}

// currentSetting reads any setting. Where a task names it, it may.
var currentSetting = sql.Name{Schema: catalogSchema, Name: "current_setting"}

// settingUse judges set_config and current_setting as the SET or SHOW that they stand
// for. Drivers repeat by SET what is held fixed, and by set_config nobody does.
func (t *task) settingUse(u *sql.SettingUse, r *resource) *refusal {
	name := strings.ToLower(u.Name)
	if !u.Write {
		if t.functions[currentSetting] {
			return nil
		}
		if u.Listed { // psql's \dconfig
			if t.tables[sql.Name{Schema: catalogSchema, Name: settingsName}] == nil {
				return nil // it sees rows of what SHOW shows, and no others
			}
			return t.noSetting("current_setting of the names in "+settingsName, "the task says what is seen of "+settingsName)
		}
		return t.show(name, "current_setting of "+name)
	}
	if u.Held {
		return nil
	}
	what := "set_config of " + name
	rule, no := t.settable(name, what)
	if no != nil {
		return hinted(no, r.pins[name])
	}
	if _, pinned := r.pins[name]; pinned || held[name] {
		return t.noSetting(what, "it is held fixed")
	}
	if !u.Known && rule != nil {
		return t.noSetting(what, "its value is a parameter; write it into the statement")
	}
	return t.value(rule, name, what, u.Value)
}

func (t *task) show(name, what string) *refusal {
	if _, settable := settings[name]; settable || shown[name] {
		return nil
	}
	return t.noSetting(what, "settings that may be shown are "+some(slices.Sorted(maps.Keys(shown)))+" and those that may be set")
}

func (t *task) settable(name, what string) (settingRule, *refusal) {
	rule, ok := settings[name]
	if ok {
		return rule, nil
	}
	detail := whyNot[name]
	if detail == "" {
		detail = "settings that may be set: " + some(slices.Sorted(maps.Keys(settings)))
	}
	return nil, t.noSetting(what, detail)
}

func (t *task) value(rule settingRule, name, what, value string) *refusal {
	if rule == nil {
		return nil
	}
	if why := rule(value, t); why != "" {
		return t.noSetting(what, name+" "+why)
	}
	return nil
}

func (t *task) noSetting(what, detail string) *refusal {
	return &refusal{rule: t.rules.settings, reason: fmt.Sprintf("%s does not allow %s", t.title, what), detail: detail}
}

func only(ok func(string) bool, why string) settingRule {
	return func(value string, _ *task) string {
		if ok(value) {
			return ""
		}
		return why
	}
}

func isOn(value string) bool {
	switch strings.ToLower(value) {
	case "on", "true", "yes", "t", "y", "1":
		return true
	}
	return false
}

func isUTF8(value string) bool {
	switch strings.ToLower(value) {
	case "utf8", "utf-8", "unicode":
		return true
	}
	return false
}

func isoDates(value string, _ *task) string {
	first, _, _ := strings.Cut(value, ",")
	if strings.EqualFold(strings.TrimSpace(first), "iso") {
		return ""
	}
	return "must begin with ISO: dates must mean the same on both sides"
}

func quietMessages(value string, _ *task) string {
	switch strings.ToLower(value) {
	case "notice", "warning", "error":
		return ""
	}
	return "may be notice, warning or error: lower ones print the server's inside"
}

// shorterTimeout lets a client lower the bound on its statements, never lift it: less than a
// millisecond PostgreSQL rounds to none.
func shorterTimeout(value string, t *task) string {
	if t.terms.StatementTimeout == 0 {
		return ""
	}
	d, ok := timeout(value)
	if !ok || d < time.Millisecond || d > t.terms.StatementTimeout {
		return fmt.Sprintf("may only be lowered below the task's %s, in whole milliseconds", t.terms.StatementTimeout)
	}
	return ""
}

// timeout reads a duration as PostgreSQL does: milliseconds, or a number with a unit.
func timeout(value string) (time.Duration, bool) {
	digits := strings.TrimRight(value, "abcdefghijklmnopqrstuvwxyz ")
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return 0, false
	}
	units := map[string]time.Duration{
		"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}
	u, ok := units[strings.TrimSpace(value[len(digits):])]
	return time.Duration(n) * u, ok
}
