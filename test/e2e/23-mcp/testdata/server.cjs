// A server of MCP as people build one with the official SDK: sessions and events at /mcp,
// neither at /json. It prints its port. Who posts to /change says what the tool search is,
// and to /introduce how it introduces itself.
const http = require('node:http');
const { randomUUID } = require('node:crypto');
const { McpServer, ResourceTemplate } = require('@modelcontextprotocol/sdk/server/mcp.js');
const { StreamableHTTPServerTransport } = require('@modelcontextprotocol/sdk/server/streamableHttp.js');
const { z } = require('zod');

const sessions = new Map();
const searches = new Set();
let description = 'Finds tickets';
let instructions;

function build() {
  const server = new McpServer({ name: 'tickets', version: '1.0.0' }, { capabilities: { logging: {} }, instructions });
  const search = server.registerTool('search', { description, inputSchema: { q: z.string() }, outputSchema: { customer: z.object({ email: z.string() }), n: z.number() } }, async ({ q }, extra) => {
    if (extra._meta?.progressToken !== undefined) {
      await extra.sendNotification({ method: 'notifications/progress', params: { progressToken: extra._meta.progressToken, progress: 1, message: 'asking anna@canary.example' } });
    }
    const found = { customer: { email: 'anna@canary.example' }, n: q.length };
    return { content: [{ type: 'text', text: JSON.stringify(found) }, { type: 'text', text: 'mail anna@canary.example' }], structuredContent: found };
  });
  searches.add(search);
  server.registerTool('refund', { description: 'Pays back', inputSchema: { amount: z.number() } }, async ({ amount }) => {
    console.error('refunded ' + amount);
    return { content: [{ type: 'text', text: 'refunded ' + amount }] };
  });
  server.registerTool('drop', { description: 'Drops all tickets' }, async () => {
    console.error('dropped');
    return { content: [{ type: 'text', text: 'dropped' }] };
  });
  server.registerResource('handbook', 'docs://handbook', { mimeType: 'text/plain' }, async (uri) => ({ contents: [{ uri: uri.href, mimeType: 'text/plain', text: 'ask anna@canary.example' }] }));
  server.registerResource('keys', 'keys://all', {}, async (uri) => ({ contents: [{ uri: uri.href, text: 'sk_all' }] }));
  server.registerResource('page', new ResourceTemplate('docs://pages/{name}', { list: undefined }), {}, async (uri, { name }) => ({ contents: [{ uri: uri.href, text: 'page ' + name }] }));
  server.registerPrompt('triage', { argsSchema: { ticket: z.string() } }, ({ ticket }) => ({ messages: [{ role: 'user', content: { type: 'text', text: 'sort ' + ticket } }] }));
  server.registerPrompt('secret', {}, () => ({ messages: [] }));
  return { server, search };
}

async function read(req) {
  const parts = [];
  for await (const p of req) parts.push(p);
  return Buffer.concat(parts).toString();
}

const listener = http.createServer(async (req, res) => {
  try {
    if (req.url === '/change') {
      description = await read(req);
      for (const s of searches) s.update({ description });
      res.end();
      return;
    }
    if (req.url === '/introduce') {
      instructions = await read(req);
      res.end();
      return;
    }
    if (req.url === '/json') {
      const { server } = build();
      const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
      res.on('close', () => server.close());
      await server.connect(transport);
      await transport.handleRequest(req, res);
      return;
    }
    const id = req.headers['mcp-session-id'];
    let transport = sessions.get(id);
    if (!transport && !id) {
      const { server, search } = build();
      transport = new StreamableHTTPServerTransport({ sessionIdGenerator: randomUUID, onsessioninitialized: (id) => sessions.set(id, transport), onsessionclosed: (id) => { sessions.delete(id); searches.delete(search); console.error('closed'); } });
      await server.connect(transport);
    }
    if (!transport) {
      res.writeHead(404).end();
      return;
    }
    await transport.handleRequest(req, res);
  } catch (e) {
    console.error(e);
    res.destroy();
  }
});
listener.listen(0, '127.0.0.1', () => console.log(listener.address().port));
