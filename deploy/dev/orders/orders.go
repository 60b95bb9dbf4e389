// Package orders is the sample company's orders-api: a JSON service over the warehouse,
// as companies have many, and a server of MCP for agents. It asks for a key that only the
// gateway holds, and trusts whoever has it.
package orders

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Name is what the service calls itself, and the gateway sends as Host.
const Name = "orders.internal"

// An API is the service.
type API struct {
	db  *pgxpool.Pool
	mux *http.ServeMux
	key string
}

// New makes the service over a database; key is the bearer token that it asks for.
func New(ctx context.Context, dsn, key string) (*API, error) {
	db, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return nil, err
	}
	a := &API{db: db, mux: http.NewServeMux(), key: key}
	a.mux.HandleFunc("GET /{$}", a.page)
	a.mux.HandleFunc("GET /api/orders", a.list)
	a.mux.HandleFunc("GET /api/orders/{id}", a.get)
	a.mux.HandleFunc("GET /api/orders/{id}/status", a.status)
	a.mux.HandleFunc("PATCH /api/orders/{id}", a.patch)
	a.mux.HandleFunc("DELETE /api/orders/{id}", a.remove)
	a.mux.HandleFunc("GET /api/orders/events", a.events)
	a.mux.HandleFunc("GET /api/orders.csv", a.csv)
	a.mux.HandleFunc("GET /api/admin/users", a.admin)
	a.mux.HandleFunc("POST /mcp", a.mcp)
	return a, nil
}

// Serve answers until ctx is done.
func (a *API) Serve(ctx context.Context, ln net.Listener, cert tls.Certificate) error {
	defer a.db.Close()
	srv := &http.Server{
		Handler: a, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+a.key)) != 1 {
		problem(w, http.StatusUnauthorized, "no or wrong key")
		return
	}
	a.mux.ServeHTTP(w, r)
}

// An Order is one order with its customer.
type Order struct {
	ID       int      `json:"id"`
	Amount   string   `json:"amount"`
	Status   string   `json:"status"`
	Note     *string  `json:"note"`
	Created  string   `json:"createdAt"`
	Customer Customer `json:"customer"`
}

// A Customer is who ordered.
type Customer struct {
	ID      int     `json:"id"`
	Name    string  `json:"name"`
	Email   string  `json:"email"`
	Phone   *string `json:"phone,omitempty"`
	Country string  `json:"country"`
}

const query = `SELECT o.id, o.amount::text, o.status, o.note, to_char(o.created_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), c.id, c.name, c.email, c.phone, c.country
	FROM sales.orders o JOIN sales.customers c ON c.id = o.customer_id `

func scan(row pgx.Row) (o Order, err error) {
	err = row.Scan(&o.ID, &o.Amount, &o.Status, &o.Note, &o.Created, &o.Customer.ID, &o.Customer.Name, &o.Customer.Email, &o.Customer.Phone, &o.Customer.Country)
	return o, err
}

// pageSize bounds a page of orders.
const pageSize = 50

func (a *API) some(r *http.Request) ([]Order, error) {
	page, _ := strconv.Atoi(r.FormValue("page"))
	limit, err := strconv.Atoi(r.FormValue("limit"))
	if err != nil || limit < 1 || limit > 10*pageSize {
		limit = pageSize
	}
	return a.find(r.Context(), r.FormValue("status"), limit, max(page-1, 0)*limit)
}

func (a *API) find(ctx context.Context, status string, limit, offset int) ([]Order, error) {
	rows, err := a.db.Query(ctx, query+`WHERE ($1 = '' OR o.status = $1) ORDER BY o.id LIMIT $2 OFFSET $3`, status, limit, offset)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Order, error) { return scan(row) })
}

func (a *API) list(w http.ResponseWriter, r *http.Request) {
	orders, err := a.some(r)
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]any{"orders": orders, "page": max(1, atoi(r.FormValue("page")))})
}

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

func (a *API) get(w http.ResponseWriter, r *http.Request) {
	o, err := scan(a.db.QueryRow(r.Context(), query+"WHERE o.id = $1", atoi(r.PathValue("id"))))
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		problem(w, http.StatusNotFound, "there is no such order")
	case err != nil:
		problem(w, http.StatusInternalServerError, err.Error())
	default:
		answer(w, http.StatusOK, o)
	}
}

// status is an order without its customer.
func (a *API) status(w http.ResponseWriter, r *http.Request) {
	var status string
	err := a.db.QueryRow(r.Context(), "SELECT status FROM sales.orders WHERE id = $1", atoi(r.PathValue("id"))).Scan(&status)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		problem(w, http.StatusNotFound, "there is no such order")
	case err != nil:
		problem(w, http.StatusInternalServerError, err.Error())
	default:
		answer(w, http.StatusOK, map[string]any{"id": atoi(r.PathValue("id")), "status": status})
	}
}

func (a *API) patch(w http.ResponseWriter, r *http.Request) {
	var change struct{ Status string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&change); err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	tag, err := a.db.Exec(r.Context(), "UPDATE sales.orders SET status = $1 WHERE id = $2", change.Status, atoi(r.PathValue("id")))
	if err != nil || tag.RowsAffected() == 0 {
		problem(w, http.StatusConflict, fmt.Sprintf("nothing was changed (%v)", err))
		return
	}
	a.get(w, r)
}

func (a *API) remove(w http.ResponseWriter, r *http.Request) {
	if _, err := a.db.Exec(r.Context(), "DELETE FROM sales.orders WHERE id = $1", atoi(r.PathValue("id"))); err != nil {
		problem(w, http.StatusConflict, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// events are server-sent: one order after the other.
func (a *API) events(w http.ResponseWriter, r *http.Request) {
	orders, err := a.some(r)
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, o := range orders {
		b, err := json.Marshal(o)
		if err != nil {
			return
		}
		_, _ = fmt.Fprintf(w, "event: order\ndata: %s\n\n", b)
		_ = http.NewResponseController(w).Flush()
	}
}

func (a *API) csv(w http.ResponseWriter, r *http.Request) {
	orders, err := a.some(r)
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/csv")
	out := csv.NewWriter(w)
	_ = out.Write([]string{"id", "amount", "status", "name", "email"})
	for _, o := range orders {
		_ = out.Write([]string{strconv.Itoa(o.ID), o.Amount, o.Status, o.Customer.Name, o.Customer.Email})
	}
	out.Flush()
}

// admin is what no task of the sample company reaches.
func (a *API) admin(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, []string{"root"})
}

var pageTemplate = template.Must(template.New("").Parse(`<!doctype html><meta charset=utf-8><title>Orders</title>
<h1>Orders</h1><table id=orders><tr><th>id<th>status<th>amount</tr>{{range .}}<tr><td>{{.ID}}<td>{{.Status}}<td>{{.Amount}}</tr>{{end}}</table>
`))

func (a *API) page(w http.ResponseWriter, r *http.Request) {
	orders, err := a.some(r)
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = pageTemplate.Execute(w, orders)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func problem(w http.ResponseWriter, status int, what string) {
	answer(w, status, map[string]string{"error": what})
}
