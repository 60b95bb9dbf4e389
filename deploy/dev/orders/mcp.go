package orders

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// message is one of the Model Context Protocol, as far as this server needs to read it.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Version   string `json:"protocolVersion"`
		Name      string `json:"name"`
		Arguments struct {
			ID     int    `json:"id"`
			Status string `json:"status"`
		} `json:"arguments"`
	} `json:"params"`
}

// tools are what agents may be given of the service.
var tools = []any{
	tool("find_orders", "Orders with a status, the first ten", map[string]string{"status": "string"}),
	tool("set_status", "Sets the status of an order", map[string]string{"id": "integer", "status": "string"}),
	tool("delete_order", "Deletes an order", map[string]string{"id": "integer"}),
}

func tool(name, description string, arguments map[string]string) any {
	properties, required := map[string]any{}, []string{}
	for name, kind := range arguments {
		properties[name] = map[string]string{"type": kind}
		required = append(required, name)
	}
	return map[string]any{"name": name, "description": description, "inputSchema": map[string]any{"type": "object", "properties": properties, "required": required}}
}

// mcp speaks the protocol without sessions and events.
func (a *API) mcp(w http.ResponseWriter, r *http.Request) {
	var m message
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&m); err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	if len(m.ID) == 0 {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	out := map[string]any{"jsonrpc": "2.0", "id": m.ID}
	switch m.Method {
	case "initialize":
		out["result"] = map[string]any{"protocolVersion": m.Params.Version, "serverInfo": map[string]string{"name": "orders", "version": "1"}, "capabilities": map[string]any{"tools": map[string]any{}}}
	case "ping":
		out["result"] = map[string]any{}
	case "tools/list":
		out["result"] = map[string]any{"tools": tools}
	case "tools/call":
		out["result"] = a.call(r.Context(), &m)
	default:
		out["error"] = map[string]any{"code": -32601, "message": "there is no method " + m.Method}
	}
	answer(w, http.StatusOK, out)
}

// call is the result of a tool: what it returns, and the same as text.
func (a *API) call(ctx context.Context, m *message) map[string]any {
	v, err := a.run(ctx, m)
	if err != nil {
		return map[string]any{"isError": true, "content": []any{map[string]string{"type": "text", "text": err.Error()}}}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return map[string]any{"isError": true, "content": []any{}}
	}
	return map[string]any{"structuredContent": v, "content": []any{map[string]string{"type": "text", "text": string(text)}}}
}

func (a *API) run(ctx context.Context, m *message) (any, error) {
	switch args := m.Params.Arguments; m.Params.Name {
	case "find_orders":
		orders, err := a.find(ctx, args.Status, 10, 0)
		return map[string]any{"orders": orders}, err
	case "set_status":
		tag, err := a.db.Exec(ctx, "UPDATE sales.orders SET status = $1 WHERE id = $2", args.Status, args.ID)
		return map[string]any{"changed": tag.RowsAffected()}, err
	case "delete_order":
		tag, err := a.db.Exec(ctx, "DELETE FROM sales.orders WHERE id = $1", args.ID)
		return map[string]any{"deleted": tag.RowsAffected()}, err
	}
	return nil, fmt.Errorf("there is no tool %s", m.Params.Name)
}
