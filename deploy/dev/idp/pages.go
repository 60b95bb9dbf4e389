package idp

import (
	"context"
	"html/template"
	"net/http"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// pages are what people see: the login, and the question of the device flow.
type pages struct {
	storage   *storage
	callback  func(ctx context.Context, id string) string
	intercept *op.IssuerInterceptor
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sample company: sign in</title>
<style>body{font:16px system-ui;max-width:24rem;margin:4rem auto;padding:0 1rem}label{display:block;margin:.75rem 0}input{display:block;width:100%;padding:.4rem}button{padding:.4rem 1rem}</style>
</head><body><h1>Sample company</h1>
{{with .Error}}<p role="alert">{{.}}</p>{{end}}{{with .Done}}<p>{{.}}</p>{{else}}
<form method="post">
<input type="hidden" name="request" value="{{.Request}}">
{{if .Device}}<label>Code shown by the device <input name="user_code" value="{{.UserCode}}" required></label>
<p>Sign in only if you asked for this yourself, just now.</p>{{end}}
<label>Name <input name="name" autocomplete="username" required autofocus></label>
<label>Password (the name again) <input name="password" type="password" autocomplete="current-password" required></label>
<button>Sign in</button>{{if .Device}} <button name="deny" value="1">Refuse</button>{{end}}
</form>{{end}}</body></html>`))

type view struct {
	Error, Done, Request, UserCode string
	Device                         bool
}

func (p *pages) mount(mux *http.ServeMux) {
	mux.Handle("/login", p.intercept.Handler(http.HandlerFunc(p.login)))
	mux.HandleFunc("/device", p.device)
}

func show(w http.ResponseWriter, status int, v view) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = page.Execute(w, v)
}

func (p *pages) login(w http.ResponseWriter, r *http.Request) {
	v := view{Request: r.FormValue("request")}
	if r.Method != http.MethodPost {
		show(w, http.StatusOK, v)
		return
	}
	name := r.PostFormValue("name")
	if !p.storage.check(name, r.PostFormValue("password")) {
		v.Error = "Name and password do not fit."
		show(w, http.StatusUnauthorized, v)
		return
	}
	if err := p.storage.signIn(v.Request, name); err != nil {
		v.Error = "This login has ended; start again."
		show(w, http.StatusBadRequest, v)
		return
	}
	http.Redirect(w, r, p.callback(r.Context(), v.Request), http.StatusFound)
}

func (p *pages) device(w http.ResponseWriter, r *http.Request) {
	v := view{Device: true, UserCode: r.FormValue("user_code")}
	if r.Method != http.MethodPost {
		show(w, http.StatusOK, v)
		return
	}
	name, deny := r.PostFormValue("name"), r.PostFormValue("deny") != ""
	if !deny && !p.storage.check(name, r.PostFormValue("password")) {
		v.Error = "Name and password do not fit."
		show(w, http.StatusUnauthorized, v)
		return
	}
	if err := p.storage.answerDevice(v.UserCode, name, !deny); err != nil {
		v.Error = "There is no such code, or it has expired."
		show(w, http.StatusBadRequest, v)
		return
	}
	v.Done = "You are signed in on the device; this page can be closed."
	if deny {
		v.Done = "The device was refused."
	}
	show(w, http.StatusOK, v)
}
