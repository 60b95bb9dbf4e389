package postgres

import (
	"context"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	pgsql "github.com/posterngate/postern/pkg/sql/postgres"
)

// shaped is what was judged of the statements of one shape: those that differ in
// literals alone have the same facts, so the same decision. Both parts were made under
// one policy and one catalogue.
type shaped struct {
	st       *statement
	template *pgsql.Template // of what is sent, where that is not the client's own text
	tried    bool            // whether there can be a template
}

// A session keeps so many shapes.
const maxShapes = 128

// ofShape is the statement for a text whose shape was judged before and allowed, or
// nil. The caller holds mu.
func (c *conn) ofShape(text []byte) *statement {
	if len(c.shapes) == 0 || len(text) > maxCachedText {
		return nil
	}
	copied := string(text)
	shape, ok := pgsql.Shape(c.shape[:0], copied)
	c.shape = shape
	if !ok {
		return nil
	}
	s := c.shapes[string(shape)]
	if s == nil || s.st.catalog != c.slot.catalog.Load().mark || c.s.Stale(s.st.adm) {
		return nil
	}
	if s.st.text == copied { // which an earlier session had judged
		c.keepText(s.st)
		return s.st
	}
	forward := copied
	if !s.st.own {
		if s.template == nil {
			return nil
		}
		sent := s.template.Fill(nil, copied)
		if sent == nil {
			return nil
		}
		if hole.Is("shape-unmasked") {
			sent = text
		}
		forward = string(sent)
	}
	return s.st.reworded(copied, forward)
}

// reworded is st for another text of its shape.
func (st *statement) reworded(text, forward string) *statement {
	both := &struct {
		st  statement
		adm engine.Admission
	}{*st, *st.adm}
	both.st.text, both.st.adm, both.st.asked, both.st.like = text, &both.adm, 0, st
	both.adm.Text, both.adm.Forward = text, forward
	return &both.st
}

// template makes the template for the shape of st, once that was met before with other
// literals: many texts never come again in any form.
func (c *conn) template(ctx context.Context, st *statement, cat *catalog) *pgsql.Template {
	if st.own || len(st.text) > maxCachedText {
		return nil
	}
	shape, ok := pgsql.Shape(nil, st.text)
	if !ok {
		return nil
	}
	c.mu.Lock()
	s := c.shapes[string(shape)]
	again := s != nil && !s.tried && s.st.text != st.text
	if again {
		s.tried = true
	}
	c.mu.Unlock()
	if !again {
		return nil
	}
	t, _ := pgsql.NewTemplate(st.text, st.adm.Forward, func(text string) (string, error) {
		an, err := c.e.build(cat, c.names, c.tokens, text).Analyse(ctx)
		if err != nil {
			return "", err
		}
		return an.Rewrite(st.adm.Decision.Obligations)
	})
	return t
}

// keepShape remembers what was judged for all texts of its shape. What people must see
// is judged by its text. The caller holds mu.
func (c *conn) keepShape(st *statement, template *pgsql.Template) {
	if st.adm.Decision.Verdict != postern.VerdictAllow {
		return
	}
	shape, ok := pgsql.Shape(c.shape[:0], st.text)
	c.shape = shape
	if !ok {
		return
	}
	kept := &shaped{st: st, template: template, tried: template != nil}
	if s := c.shapes[string(shape)]; s != nil && template == nil && s.st.catalog == st.catalog && !c.s.Stale(s.st.adm) && !c.s.Stale(st.adm) {
		kept.template, kept.tried = s.template, s.tried // of the same masks
	} else if s == nil && len(c.shapes) >= maxShapes {
		clear(c.shapes)
	}
	c.shapes[string(shape)] = kept
}
