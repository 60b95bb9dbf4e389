package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/ssh"
)

// PermitLevel says how well one permit of a task is kept on a resource.
type PermitLevel struct {
	Rule    string
	Allows  string // such as "select on sales.orders"
	Level   postern.Level
	Remains []string // what the gateway alone keeps, though the level is native
}

// Levels are those of a task's permits on a resource, in order; false where the task does
// not reach it.
func (s *Snapshot) Levels(t postern.TaskName, r postern.ResourceName) ([]PermitLevel, bool) {
	task, ok := s.tasks[t]
	if !ok || task.reach[r] == nil {
		return nil, false
	}
	if p := task.unrestricted; p != nil {
		return []PermitLevel{{Rule: p.rule, Allows: "everything", Level: postern.LevelNone}}, true
	}
	var permits []*permit
	for _, name := range slices.Collect(maps.Keys(task.tables)) {
		permits = append(permits, task.tables[name].all()...)
	}
	permits = slices.Concat(permits, task.commands, task.channels, task.requests)
	slices.SortFunc(permits, func(a, b *permit) int { return a.index - b.index })
	var out []PermitLevel
	for _, p := range permits {
		l := PermitLevel{Rule: p.rule, Allows: p.allows(), Level: task.reach[r].level}
		if p.channel != nil && slices.Contains(p.channel.verbs, ssh.Shell) {
			l.Level = postern.LevelNone // what is done in it nobody judges
		}
		if p.request != nil && p.request.websocket {
			l.Level = postern.LevelNone
		}
		if p.tokens {
			l.Level = min(l.Level, postern.LevelResult) // a token is written on the way back
		}
		if l.Level == postern.LevelNative {
			if systemSchema(p.table.Schema) {
				l.Level = postern.LevelSource // there is no view before what every login may read
			}
			l.Remains = task.remains(p)
		}
		out = append(out, l)
	}
	return out, true
}

// TasksOn are the tasks that reach a resource, sorted.
func (s *Snapshot) TasksOn(r postern.ResourceName) []postern.TaskName {
	var out []postern.TaskName
	for name, t := range s.tasks {
		if t.reach[r] != nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (p *permit) allows() string {
	if p.channel != nil {
		var verbs []string
		for _, v := range p.channel.verbs {
			verbs = append(verbs, string(v))
		}
		return strings.Join(verbs, ", ") + " " + some(append(slices.Clone(p.channel.argv), p.channel.paths...))
	}
	if p.request != nil {
		verbs, on := p.request.summary()
		return verbs + " " + on
	}
	if len(p.commands) > 0 {
		return strings.ToLower(strings.Join(p.commands, ", ")) + " in schema " + strings.Join(slices.Sorted(maps.Keys(p.schemas)), ", ")
	}
	return strings.Join(p.verbs, ", ") + " on " + p.table.String()
}

// remains lists what of a permit no privilege of the target expresses.
func (t *task) remains(p *permit) []string {
	var out []string
	add := func(is bool, format string, args ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	add(p.approval != nil || t.approval != nil, "approval by people")
	add(p.when != nil || t.when != nil, "conditions (when)")
	add(p.requireWhere, "requireWhere")
	add(p.maxAffected > 0, "maxAffected")
	add(slices.Contains(p.verbs, string(sql.Update)) && slices.Contains(p.verbs, string(sql.Insert)) && len(p.writeColumns) > 0 && t.split(p), "which of its columns are for insert and which for update")
	return out
}

// split reports whether another permit of the table has other columns to write, which the
// target's privileges join.
func (t *task) split(p *permit) bool {
	return slices.ContainsFunc(t.tables[p.table].all(), func(o *permit) bool {
		return o != p && len(o.writeColumns) > 0 && !maps.Equal(o.writeColumns, p.writeColumns)
	})
}
