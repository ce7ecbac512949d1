// Calls nodecredstash. Reads one JSON request per line, `{"call": "getSecret", "with": {...}}`, and
// writes one JSON response per line, `{"ok": ...}` or `{"error": "..."}`.
import readline from 'node:readline';
import { CredStash } from 'nodecredstash';

async function main() {
  const store = new CredStash();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    let response;
    try {
      response = { ok: (await store[request.call](request.with)) ?? null };
    } catch (error) {
      response = { error: `${error.name}: ${error.message}` };
    }
    process.stdout.write(`${JSON.stringify(response)}\n`);
  }
}

main();
