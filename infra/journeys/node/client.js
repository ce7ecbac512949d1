// Drives nodecredstash: one JSON request a line on stdin, `{"call": "getSecret", "with": {...}}`,
// one JSON answer a line on stdout, `{"ok": ...}` or `{"error": "..."}`.
import readline from 'node:readline';
import { CredStash } from 'nodecredstash';

async function main() {
  const store = new CredStash();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    let answer;
    try {
      answer = { ok: (await store[request.call](request.with)) ?? null };
    } catch (error) {
      answer = { error: `${error.name}: ${error.message}` };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}

main();
