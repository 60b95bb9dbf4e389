// The official SDK's client: it connects to MCP_URL with the headers in MCP_HEADERS, does
// what each line of its input asks, as JSON, and says what came of it in one line.
const readline = require('node:readline');
const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = require('@modelcontextprotocol/sdk/client/streamableHttp.js');
const { ToolListChangedNotificationSchema, ResultSchema } = require('@modelcontextprotocol/sdk/types.js');

const say = (o) => console.log(JSON.stringify(o));

(async () => {
  const client = new Client({ name: 'an-agent', version: '1.0.0' }, { capabilities: { roots: {} } });
  const transport = new StreamableHTTPClientTransport(new URL(process.env.MCP_URL), { requestInit: { headers: JSON.parse(process.env.MCP_HEADERS) } });
  let changes = 0;
  client.setNotificationHandler(ToolListChangedNotificationSchema, () => { changes++; });
  const patience = { timeout: 120000 };
  await client.connect(transport, patience);
  say({ connected: client.getServerVersion().name, session: transport.sessionId !== undefined });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const step = JSON.parse(line);
    try {
      const progress = [];
      const options = step.progress ? { ...patience, onprogress: (p) => progress.push(p.message) } : patience;
      let result;
      switch (step.do) {
        case 'tools': result = (await client.listTools(undefined, patience)).tools.map((t) => t.name + ': ' + t.description); break;
        case 'resources': result = (await client.listResources(undefined, patience)).resources.map((r) => r.uri); break;
        case 'templates': result = (await client.listResourceTemplates(undefined, patience)).resourceTemplates.map((r) => r.uriTemplate); break;
        case 'prompts': result = (await client.listPrompts(undefined, patience)).prompts.map((p) => p.name); break;
        case 'call': result = await client.callTool({ name: step.name, arguments: step.arguments ?? {} }, undefined, options); break;
        case 'read': result = await client.readResource({ uri: step.name }, patience); break;
        case 'prompt': result = await client.getPrompt({ name: step.name, arguments: step.arguments }, patience); break;
        case 'ping': result = await client.ping(patience); break;
        case 'raw': result = await client.request({ method: step.name, params: {} }, ResultSchema, patience); break;
        case 'changes': // waits until it was told of one
          while (changes === 0) await new Promise((done) => setTimeout(done, 20));
          changes = 0;
          result = 'told';
          break;
        case 'close': await transport.terminateSession(); await client.close(); result = 'closed'; break;
      }
      say({ result, progress });
      if (step.do === 'close') return;
    } catch (e) {
      say({ error: e.message, code: e.code, data: e.data });
    }
  }
})().catch((e) => { say({ failed: e.message }); process.exit(1); });
