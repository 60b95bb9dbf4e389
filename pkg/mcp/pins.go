package mcp

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
)

// Lists of what is pinned. Of resources the templates are; which ones there are is data.
const (
	Tools        = "tools"
	Prompts      = "prompts"
	Templates    = "resourceTemplates"
	Instructions = "instructions"
)

// Introduction is the one name in the list of instructions.
const Introduction = "(the server's instructions)"

// Limits of what is remembered of one server.
const (
	// maxPins is how many bytes all pins may have; what is over them is not shown.
	maxPins = 48 << 10
	pinCost = 2*sha256.Size + 16 // of one, beside its names
	// maxPolicy is how long a pin of policy may be, as text.
	maxPolicy = 128
	// openFor is for how long a list may grow that never comes to its end.
	openFor = 10 * time.Minute
)

// Note adds what a request tells to what is known of a server, and reports whether that is
// something new. What is seen first is what it must be from then on, until a list has come
// to its end: what comes later was added, and nobody has looked at it. An error says that
// no server can be so.
func Note(p *nodev1.ServerPins, r *nodev1.PinServerRequest, now time.Time) (changed bool, err error) {
	switch r.GetList() {
	case "":
		return false, nil
	case Tools, Prompts, Templates, Instructions:
	default:
		return false, fmt.Errorf("nothing is pinned in a list of %q", r.GetList())
	}
	for _, said := range slices.Concat(r.GetSaid(), r.GetAccepted()) {
		if n := len(said.GetName()); n == 0 || n > maxName || len(said.GetNow()) != sha256.Size || len(said.GetPolicy()) > maxPolicy {
			return false, fmt.Errorf("%.40q is no pin", said.GetName())
		}
	}
	l := listOf(p, r.GetList())
	if l == nil {
		l = &nodev1.PinnedList{Name: r.GetList(), BeginTime: timestamppb.New(now)}
		p.Lists, changed = append(p.Lists, l), true
	}
	whole, room := l.GetWhole() || now.Sub(l.GetBeginTime().AsTime()) >= openFor, maxPins-size(p)
	by := make(map[string]*nodev1.Pin, len(l.GetPins()))
	for _, have := range l.GetPins() {
		by[have.GetName()] = have
	}
	for _, said := range r.GetSaid() {
		have := by[said.GetName()]
		switch {
		case have == nil:
			if room -= cost(said); room < 0 {
				continue
			}
			have = &nodev1.Pin{Name: said.GetName()}
			if !whole {
				have.First = said.GetNow()
			}
			l.Pins, by[have.GetName()] = append(l.Pins, have), have
		case bytes.Equal(have.GetNow(), said.GetNow()):
			continue
		}
		have.Now, changed = said.GetNow(), true
	}
	for _, a := range r.GetAccepted() {
		have := by[a.GetName()]
		if have == nil || !bytes.Equal(have.GetNow(), a.GetNow()) || have.GetAccepted() && have.GetPolicy() == a.GetPolicy() && bytes.Equal(have.GetFirst(), a.GetNow()) {
			continue // it has changed once more since, or is so already
		}
		have.First, have.Accepted, have.Policy, changed = have.GetNow(), true, a.GetPolicy(), true
	}
	if r.GetWhole() && !l.GetWhole() {
		l.Whole, changed = true, true
	}
	return changed, nil
}

func cost(p *nodev1.Pin) int { return len(p.GetName()) + len(p.GetPolicy()) + pinCost }

func size(p *nodev1.ServerPins) (n int) {
	for _, l := range p.GetLists() {
		for _, pin := range l.GetPins() {
			n += cost(pin)
		}
	}
	return n
}

func listOf(p *nodev1.ServerPins, name string) *nodev1.PinnedList {
	for _, l := range p.GetLists() {
		if l.GetName() == name {
			return l
		}
	}
	return nil
}

func pinOf(p *nodev1.ServerPins, list, name string) *nodev1.Pin {
	for _, pin := range listOf(p, list).GetPins() {
		if pin.GetName() == name {
			return pin
		}
	}
	return nil
}

// want is the hash that a thing must have: what people have accepted, as long as policy
// pins what it did then; else what policy pins, or what was seen first. It is empty for
// what was added.
func want(pin *nodev1.Pin, policy string) string {
	switch {
	case policy != "" && (!pin.GetAccepted() || pin.GetPolicy() != policy):
		return policy
	case len(pin.GetFirst()) == 0:
		return ""
	}
	return written(pin.GetFirst())
}

const hashed = "sha256:"

func written(hash []byte) string { return hashed + hex.EncodeToString(hash) }

// differs says how a thing is not what it must be; empty where it is. One that policy pins
// and that nobody has seen is not known to be so, nor is one that the server does not list.
func differs(p *nodev1.ServerPins, list, name, policy string) string {
	pin := pinOf(p, list, name)
	switch {
	case pin == nil && policy != "":
		return "it must be " + policy + ", and the server was not asked yet: list the " + list + " first"
	case pin == nil && listOf(p, list).GetWhole() && list != Instructions:
		return "it was not there when the server was asked: list the " + list + " first"
	case pin == nil:
		return ""
	}
	switch must, is := want(pin, policy), written(pin.GetNow()); must {
	case is:
		return ""
	case "":
		return "it was added, and is " + is
	default:
		return "it was " + must + " and is " + is
	}
}

// between stands between what people are told of several things.
const between = "; "

// told is how people are told that a thing is not what it must be.
func told(of thing, how string) string { return called(of.list, of.name) + " has changed: " + how }

// unshown stands below what people are told of changes, in the place of a text that they
// cannot be shown.
const unshown = "(the text of what has changed is not all here: it is too long, or was not heard by this node)"

const digest = hashed + "[0-9a-f]{64}"

// change is what told says, with the hash of what is said now where there is one.
var change = regexp.MustCompile(`^((?:the server's introduction|the (?:tool|prompt|resource template) "(?:[^"\\]|\\.)*") has changed: it ` +
	`(?:was (?:added,|` + digest + `) and is (` + digest + `)|must be ` + digest + `, and the server was not asked yet: list the (?:tools|prompts|resourceTemplates) first|` +
	`was not there when the server was asked: list the (?:tools|prompts|resourceTemplates) first))(?:` + between + `|$)`)

// changesIn reads what people were told, one line of changes (told, differs), and below it
// what is said now of them, each in a line. It is false where anything else stands there:
// words of who asks beside a hash, a text that has another hash, or none where nothing says
// that there is one.
func changesIn(text string) (changes []string, ok bool) {
	line, below, _ := strings.Cut(text, "\n")
	shown := map[string]bool{} // by hash: whether its text stands below
	for line != "" {
		m := change.FindStringSubmatch(line)
		if m == nil {
			return nil, false
		}
		line = line[len(m[0]):]
		changes = append(changes, m[1])
		if m[2] != "" {
			shown[m[2]] = false
		}
	}
	whole := true
	for said := range strings.SplitSeq(below, "\n") {
		sum := sha256.Sum256([]byte(said))
		is := written(sum[:])
		switch _, of := shown[is]; {
		case of:
			shown[is] = true
		case said == unshown:
			whole = false
		case said != "":
			return nil, false
		}
	}
	for _, is := range shown {
		if !is && whole {
			return nil, false
		}
	}
	return changes, true
}

// Shown reports whether people who were asked with these parameters (Facts.Asked) were
// told of each change that a request has let be, just as it is now, and shown no text of it
// but its own.
func Shown(p *nodev1.ServerPins, r *nodev1.PinServerRequest, asked []string) bool {
	var changes []string
	if n := len(asked); n > 0 { // the last says what has changed
		changes, _ = changesIn(asked[n-1])
	}
	for _, a := range r.GetAccepted() {
		pin := pinOf(p, r.GetList(), a.GetName())
		if pin == nil || !bytes.Equal(pin.GetNow(), a.GetNow()) {
			continue // Note passes over it
		}
		how := differs(p, r.GetList(), a.GetName(), a.GetPolicy())
		if how != "" && !slices.Contains(changes, told(thing{r.GetList(), a.GetName()}, how)) {
			return false
		}
	}
	return true
}

// hash is how a thing is pinned: of all that a server says of it.
func hash(thing map[string]any) (sum, text []byte, err error) {
	if text, err = encode(thing); err != nil {
		return nil, nil, err
	}
	h := sha256.Sum256(text)
	return h[:], text, nil
}

// called is how people name a thing of a list.
func called(list, name string) string {
	kind := strings.TrimSuffix(list, "s")
	switch list {
	case Instructions:
		return "the server's introduction"
	case Templates:
		kind = "resource template"
	}
	return fmt.Sprintf("the %s %q", kind, name)
}
