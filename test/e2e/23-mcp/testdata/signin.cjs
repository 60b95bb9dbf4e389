// The official SDK's client, that knows MCP_URL and the name CLIENT that its makers have at the
// issuer: it finds out where PERSON signs in, who does so in its browser, and calls a tool.
const dns = require('node:dns');
const { lookup } = dns;
dns.lookup = (host, options, done) => lookup(host.endsWith('.localhost') ? '127.0.0.1' : host, options, done);
const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
const { UnauthorizedError } = require('@modelcontextprotocol/sdk/client/auth.js');
const { StreamableHTTPClientTransport } = require('@modelcontextprotocol/sdk/client/streamableHttp.js');

const say = (o) => console.log(JSON.stringify(o));

// browser is what a person does there, and the code with which their browser comes back.
async function browser(url) {
  const to = async (from, options) => {
    const resp = await fetch(from, { redirect: 'manual', ...options });
    if (resp.status < 300 || resp.status > 399) throw new Error(from + ': ' + resp.status + ' ' + await resp.text());
    return new URL(resp.headers.get('location'), from);
  };
  const login = await to(url);
  const name = process.env.PERSON;
  const body = new URLSearchParams({ request: login.searchParams.get('request'), name, password: name });
  return (await to(await to(login, { method: 'POST', body }))).searchParams.get('code');
}

const kept = {};
let code;
const provider = {
  redirectUrl: 'http://127.0.0.1:1/callback',
  clientMetadata: { redirect_uris: ['http://127.0.0.1:1/callback'] },
  clientInformation: () => ({ client_id: process.env.CLIENT }),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  redirectToAuthorization: async (url) => {
    say({ asked: url.searchParams.get('scope'), resource: url.searchParams.get('resource') });
    code = await browser(url);
  },
};

(async () => {
  const connect = async () => {
    const client = new Client({ name: 'an-agent', version: '1.0.0' });
    const transport = new StreamableHTTPClientTransport(new URL(process.env.MCP_URL), { authProvider: provider });
    try {
      await client.connect(transport);
    } catch (e) {
      if (!(e instanceof UnauthorizedError) || kept.tokens) throw e;
      await transport.finishAuth(code);
      return connect();
    }
    return client;
  };
  const client = await connect();
  say({ connected: client.getServerVersion().name });
  say(await client.callTool({ name: 'search', arguments: { q: 'late' } }));
  await client.close();
})().catch((e) => { say({ failed: e.message }); });
