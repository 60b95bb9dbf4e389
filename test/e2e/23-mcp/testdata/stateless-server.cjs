// A server as people build one with the second generation of the official SDK, for clients of the
// version 2026-07-28 alone. It prints its port.
const http = require('node:http');
const { McpServer, createMcpHandler } = require('@modelcontextprotocol/server');
const { toNodeHandler } = require('@modelcontextprotocol/node');
const { z } = require('zod');

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: 'tickets', version: '2.0.0' }, { instructions: 'Be kind' });
  server.registerTool('search', { description: 'Finds tickets', inputSchema: z.object({ q: z.string() }) }, async ({ q }) => {
    const found = { customer: { email: 'anna@canary.example' }, n: q.length };
    return { content: [{ type: 'text', text: JSON.stringify(found) }], structuredContent: found };
  });
  server.registerTool('drop', { description: 'Drops all tickets' }, async () => {
    console.error('dropped');
    return { content: [{ type: 'text', text: 'dropped' }] };
  });
  server.registerTool('ask', { description: 'Asks its client', inputSchema: z.object({}) }, async () => ({
    resultType: 'input_required', inputRequests: { a: { method: 'elicitation/create', params: { mode: 'form', message: 'Your password?', requestedSchema: { type: 'object', properties: {} } } } },
  }));
  return server;
}, { legacy: 'reject' });

http.createServer(toNodeHandler(handler)).listen(0, '127.0.0.1', function () { console.log(this.address().port); });
