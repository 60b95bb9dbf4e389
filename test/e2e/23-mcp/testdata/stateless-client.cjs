// The client of the second generation of the official SDK, which finds out what a server speaks. It
// says what came of each step in one line.
const { Client, StreamableHTTPClientTransport } = require('@modelcontextprotocol/client');

const say = (o) => console.log(JSON.stringify(o));

(async () => {
  const client = new Client({ name: 'an-agent', version: '1.0.0' }, { versionNegotiation: { mode: 'auto' }, capabilities: { elicitation: { form: {} } } });
  client.setRequestHandler('elicitation/create', async () => { say({ asked: true }); return { action: 'accept', content: {} }; });
  await client.connect(new StreamableHTTPClientTransport(new URL(process.env.MCP_URL), { requestInit: { headers: JSON.parse(process.env.MCP_HEADERS) } }));
  say({ connected: client.getServerVersion(), era: client.getProtocolEra(), told: client.getInstructions() });
  say({ tools: (await client.listTools()).tools.map((t) => t.name) });
  for (const name of ['search', 'ask', 'drop']) {
    try {
      say({ [name]: await client.callTool({ name, arguments: name === 'search' ? { q: 'late' } : {} }) });
    } catch (e) {
      say({ [name]: e.message });
    }
  }
  await client.close();
})().catch((e) => { say({ failed: e.message, data: e.data, cause: String(e.cause) }); });
