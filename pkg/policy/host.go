package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/ssh"
)

// ssh judges one request of an SSH client.
func (j *judge) ssh(f *ssh.Facts) postern.Decision {
	t := j.task
	switch {
	case f == nil:
		return j.unclear("")
	case f.Unknown != "":
		return j.unclear(f.Unknown)
	}
	if no := j.unmet(t.when, nil, t.rules.when); no != nil {
		return j.deny(no)
	}
	var ok bool
	switch f.Verb {
	case ssh.Exec:
		ok = j.line(f)
	case ssh.Shell:
		ok = j.shell(f)
	case ssh.Connect, ssh.Listen:
		ok = j.channel(f, fmt.Sprintf("%s %s", f.Verb, f.Address), func(ch *channel) bool { return ch.destinations[f.Address] })
	case ssh.Files:
		ok = j.files()
	case ssh.Read, ssh.Write, ssh.Delete:
		if len(f.Paths) == 0 {
			return j.unclear("it names no file")
		}
		ok = j.paths(f)
	default:
		return j.unclear("")
	}
	if !ok {
		return j.d
	}
	return j.settle()
}

// shell judges the wish to work interactively. Where the task has no shell for it, the
// gateway's own prompt does, in which each line is judged.
func (j *judge) shell(f *ssh.Facts) bool {
	guard := !slices.ContainsFunc(j.task.channels, func(p *permit) bool {
		return slices.Contains(p.channel.verbs, ssh.Shell) && !p.channel.guard
	})
	if !j.channel(f, "a shell", func(ch *channel) bool { return ch.guard == guard }) {
		return false
	}
	if guard {
		j.d.Effect = postern.EffectNone
		j.d.Obligations = append(j.d.Obligations, postern.Obligation{Guard: true})
	} else {
		j.d.Level = postern.LevelNone // what is done in it nobody judges
	}
	return true
}

// paths judges an operation on files by each of their paths. That one of them has more below
// it is told to whom the paths themselves are permitted.
func (j *judge) paths(f *ssh.Facts) bool {
	what := fmt.Sprintf("to %s %s", f.Verb, cmp.Or(f.Asked, strings.Join(f.Paths, " ")))
	for _, p := range f.Paths {
		if !j.channel(f, what, func(ch *channel) bool { return ch.reaches(p) }) {
			return false
		}
	}
	for _, p := range f.Paths {
		if f.Below && !j.channel(f, what+" with all that is below", func(ch *channel) bool { return ch.reachesBelow(p) }) {
			return false
		}
	}
	return j.home(f, what) && (f.To == "" || j.move(f, what))
}

// home judges a change by what it makes of the account's home, where names that begin with a dot say what
// runs at a login, and who may log in: they are permitted by patterns that say the dot, as in a shell, and
// the home as a whole is neither moved nor removed. Whoever is told so may change it but for that.
func (j *judge) home(f *ssh.Facts, what string) bool {
	if f.Home == "" || f.Verb != ssh.Write && f.Verb != ssh.Delete {
		return true
	}
	in := strings.TrimSuffix(f.Home, "/") + "/"
	for _, p := range f.Paths {
		whole := (f.Below || f.Verb == ssh.Delete) && strings.HasPrefix(in, strings.TrimSuffix(p, "/")+"/")
		dotted := strings.HasPrefix(p, in+".")
		said := dotted && slices.ContainsFunc(j.task.channels, func(t *permit) bool {
			return slices.Contains(t.channel.verbs, f.Verb) && t.channel.saysDot(p, strings.Count(in, "/"))
		})
		if whole || dotted && !said {
			j.deny(&refusal{
				rule: j.task.rules.permit, reason: fmt.Sprintf("%s does not allow %s: it would change what runs at the account's logins", j.task.title, what),
				detail: "names in the account's home that begin with a dot are permitted by patterns that say so, such as /home/app/.cache/**",
				hint:   HintTasks,
			})
			return false
		}
	}
	return true
}

// move judges a rename as what it lets be read: a file is not read by its new name that could not
// be read by its old one, nor on other terms. Where no permit to read has terms (a
// condition, people), one is as good as another.
func (j *judge) move(f *ssh.Facts, what string) bool {
	from, to, same, free := false, false, true, true
	for _, p := range j.task.channels {
		if !slices.Contains(p.channel.verbs, ssh.Read) {
			continue
		}
		old, now := p.channel.reaches(f.From), p.channel.reaches(f.To)
		whole := old
		if f.Below {
			old, now, whole = p.channel.meets(f.From), p.channel.meets(f.To), p.channel.reachesBelow(f.From)
		}
		from, to = from || whole, to || now
		if old || now {
			same = same && old == now && (!f.Below || whole && p.channel.reachesBelow(f.To))
			free = free && p.when == nil && p.approval == nil
		}
	}
	if !to || same || from && free {
		return true
	}
	j.deny(&refusal{
		rule: j.task.rules.permit, reason: fmt.Sprintf("%s does not allow %s: what is there could then be read, or on other terms", j.task.title, what),
		detail: j.task.allowed, hint: HintTasks,
	})
	return false
}

// files judges the wish to work on files, of which each is then judged by itself: a task
// that permits none has nothing to begin.
func (j *judge) files() bool {
	if slices.ContainsFunc(j.task.channels, func(p *permit) bool { return len(p.channel.paths) > 0 }) {
		j.d.Effect = postern.EffectNone
		return true
	}
	j.deny(&refusal{rule: j.task.rules.permit, reason: fmt.Sprintf("%s does not allow files", j.task.title), detail: j.task.allowed, hint: HintTasks})
	return false
}

// line judges a command line: each of its commands must be permitted, and what runs is
// the permitted program itself.
func (j *judge) line(f *ssh.Facts) bool {
	if f.Line == nil {
		j.unclear("")
		return false
	}
	var programs []string
	for i, c := range f.Line.Commands() {
		ok := j.channel(f, strings.Join(c.Argv, " "), func(ch *channel) bool {
			program, ok := ch.runs(c.Argv)
			if ok {
				programs = append(programs[:i], program)
			}
			return ok
		})
		if !ok {
			return false
		}
	}
	j.d.Obligations = append(j.d.Obligations, postern.Obligation{Programs: programs})
	return true
}

// channel finds a permit that has the request's verb and fits it, and puts the request to
// people where that asks for it. It is false once the decision is a denial.
func (j *judge) channel(f *ssh.Facts, what string, fits func(*channel) bool) bool {
	t := j.task
	no := &refusal{rule: t.rules.permit, reason: fmt.Sprintf("%s does not allow %s", t.title, what), detail: t.allowed, hint: HintTasks}
	for _, p := range t.channels {
		ch := p.channel
		if !slices.Contains(ch.verbs, f.Verb) || !fits(ch) {
			continue
		}
		if f.Terminal && !ch.terminal {
			no = &refusal{rule: p.rule, reason: fmt.Sprintf("%s does not allow %s on a terminal", t.title, what), hint: "run it without: ssh -T"}
			continue
		}
		if unmet := j.unmet(p.when, nil, p.ruleWhen); unmet != nil {
			no = unmet
			continue
		}
		j.by(p)
		if len(ch.env) > 0 {
			j.d.Obligations = append(j.d.Obligations, postern.Obligation{Env: ch.env})
		}
		j.contentMasks(p.content)
		for _, a := range [...]*postern.Approval{j.query.Grant.Approval, t.approval, p.approval} {
			if a != nil && a.Scope == postern.ScopeStatement && !j.ask(a, p.ruleApproval) {
				return false
			}
		}
		return true
	}
	j.deny(no)
	return false
}
