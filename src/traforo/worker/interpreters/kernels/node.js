// The Node interpreter of a context. It runs inside a sandbox, under whatever Node (16 and up) its image has.
//
// Requests come through descriptor 9; answers go out in small pieces on descriptor 8, which is standard output, each
// behind a mark that ordinary output does not have. Code runs as Node's own prompt runs it: declarations stay, `await`
// works at the top, the last value is shown.
'use strict';
(function (nonce) {
  const fs = require('fs');
  const net = require('net');
  const stream = require('stream');
  const util = require('util');
  const vm = require('vm');
  const FIRST = 1, LAST = 2;
  const PIECE_BYTES = 4000, KEPT_BYTES = 16 * 1024 * 1024, BUNDLE_BYTES = 8 * 1024 * 1024;
  const TEXT_CHARACTERS = 1024 * 1024, MAX_RESULTS = 1000;
  const SIGINT_STATUS = 130;
  const BUNDLE = Symbol.for('Jupyter.display');
  const mark = Buffer.concat([Buffer.from([0]), Buffer.from(nonce, 'latin1')]);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  let runs = 0;
  let kept = recorded('');
  let current = null;

  function write(descriptor, data) {
    for (let at = 0; at < data.length;) {
      try {
        at += fs.writeSync(descriptor, data, at, data.length - at);
      } catch (error) {
        if (error.code !== 'EAGAIN') throw error;
        Atomics.wait(pause, 0, 0, 1); // a child has set the pipe so, for all who have it
      }
    }
  }

  // Node's own streams keep what does not fit in memory, where a mark would overtake it, and are left unusable by an
  // interrupt at the wrong moment.
  function direct(output, descriptor) {
    output._handle?.setBlocking?.(true);
    output.write = (chunk, encoding, done) => {
      const data = typeof chunk === 'string' ? Buffer.from(chunk, typeof encoding === 'string' ? encoding : 'utf8') : chunk;
      write(descriptor, data);
      const then = typeof encoding === 'function' ? encoding : done;
      if (typeof then === 'function') process.nextTick(then);
      return true;
    };
  }

  function send(kind, payload) {
    let at = 0, place = FIRST;
    for (;;) {
      const part = payload.subarray(at, at + PIECE_BYTES);
      at += part.length;
      if (at >= payload.length) place |= LAST;
      const head = Buffer.from(kind + place + String(part.length).padStart(4, '0'));
      write(8, Buffer.concat([mark, head, part]));
      if (place & LAST) return;
      place = 0;
    }
  }

  function joined(fields) {
    return Buffer.concat(fields.flatMap((field) => {
      const data = Buffer.isBuffer(field) ? field : Buffer.from(String(field));
      const size = Buffer.alloc(4);
      size.writeUInt32BE(data.length);
      return [size, data];
    }));
  }

  function split(data) {
    const fields = [];
    for (let at = 0; at < data.length;) {
      const end = at + 4 + data.readUInt32BE(at);
      fields.push(data.subarray(at + 4, end));
      at = end;
    }
    return fields;
  }

  // What there is to tell of one run. What its code still shows when it is over belongs to no other run, and is dropped.
  function recorded(run) {
    return { run, answers: [], bytes: 0, count: 0, end: null };
  }

  function numbered(record, kind, fields) {
    if (record.end !== null) return;
    const payload = joined([record.run, record.count, ...fields]);
    if (record.bytes + payload.length <= KEPT_BYTES) {
      record.answers.push([record.count, kind, payload]);
      record.bytes += payload.length;
    }
    record.count += 1;
    send(kind, payload);
  }

  function content(data) {
    if (typeof data === 'string') return Buffer.from(data);
    if (data instanceof Uint8Array) return Buffer.from(Buffer.from(data).toString('base64'));
    try {
      const text = JSON.stringify(data);
      return text === undefined ? null : Buffer.from(text);
    } catch {
      return null;
    }
  }

  function bundle(record, found, main) {
    if (record.count >= MAX_RESULTS) {
      if (record.count === MAX_RESULTS) {
        process.stderr.write(`display: only the first ${MAX_RESULTS} results of a run are kept\n`);
        numbered(record, 'R', ['0', 'text/plain', '\u2026']);
      }
      return;
    }
    const fields = [main ? '1' : '0'];
    let left = BUNDLE_BYTES;
    for (const [name, value] of Object.entries(found)) {
      const data = content(value);
      if (data === null || data.length > left) continue;
      left -= data.length;
      fields.push(name, data);
    }
    if (fields.length === 1) fields.push('text/plain', `(a result of more than ${BUNDLE_BYTES} bytes)`);
    numbered(record, 'R', fields);
  }

  async function show(record, value, main) {
    let found = {};
    if (value !== null && (typeof value === 'object' || typeof value === 'function')) {
      if (typeof value[BUNDLE] === 'function') found = { ...(await value[BUNDLE]()) };
    }
    if (typeof found['text/plain'] !== 'string') found['text/plain'] = util.inspect(value);
    if (found['text/plain'].length > TEXT_CHARACTERS) {
      found['text/plain'] = found['text/plain'].slice(0, TEXT_CHARACTERS) + '\u2026';
    }
    bundle(record, found, main);
  }

  class Exit extends Error {}

  function fail(record, error) {
    let name = 'Error', value = '', lines = [];
    try {
      if (error instanceof Error || util.types.isNativeError(error)) {
        name = String(error.name);
        value = String(error.message);
        const stack = String(error.stack || `${name}: ${value}`).split('\n');
        lines = stack.filter((line) => !/^\s+at .*(node:|<traforo>|\[eval|new Promise \(<anon)/.test(line));
      } else {
        value = util.inspect(error);
        lines = [`Uncaught ${value}`];
      }
    } catch {
      lines = [name];
    }
    if (lines.length > 1000) lines = [...lines.slice(0, 500), '\u2026', ...lines.slice(-499)];
    numbered(record, 'E', [name, value, ...lines].map((text) => Buffer.from(text.slice(0, 65536))));
  }

  // The prompt of Node itself, which nobody types at.
  const server = require('repl').start({
    prompt: '',
    input: new stream.PassThrough(),
    output: new stream.Writable({ write(chunk, encoding, done) { done(); } }),
    terminal: false,
    useGlobal: true,
  });

  server.removeAllListeners('SIGINT'); // it would leave

  function interrupted() {
    const error = new Error('Script execution was interrupted by `SIGINT`');
    error.code = 'ERR_SCRIPT_EXECUTION_INTERRUPTED';
    error.stack = `Error: ${error.message}`;
    return error;
  }

  let task = null;
  const watched = new vm.Script('globalThis[Symbol.for("traforo.task")]()', { filename: '<traforo>' });
  Object.defineProperty(globalThis, Symbol.for('traforo.task'), { value: () => task() });

  // An interrupt that comes while Node itself is at work takes away everything on the stack, with no error to catch:
  // so nothing of ours is on it, and what was begun and has not returned when the loop goes on was broken.
  function evaluated(code, name) {
    return new Promise((resolve, reject) => {
      let begun = false, returned = false;
      task = () => server.eval(code, server.context, name, (error, value) => {
        if (error) reject(error.err instanceof Error ? error.err : error);
        else resolve([value]);
      });
      setImmediate(() => {
        begun = true;
        try {
          watched.runInThisContext({ breakOnSigint: true });
        } catch (error) {
          reject(error.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED' ? interrupted() : error);
        }
        returned = true;
      });
      const look = () => {
        listen();
        if (!begun) setTimeout(look, 1);
        else if (!returned) reject(interrupted());
      };
      setTimeout(look, 1);
    });
  }

  let asked = null;
  let showing = [];

  async function run(id, code, variables) {
    showing = [];
    listen();
    const record = kept = recorded(id);
    const before = Object.keys(variables).map((name) => [name, process.env[name]]);
    Object.assign(process.env, variables);
    let status = 0;
    try {
      const broken = new Promise((resolve, reject) => { current = reject; });
      broken.catch(() => {});
      const work = evaluated(code, `<run ${runs += 1}>`).then(async ([found]) => {
        const value = util.types.isPromise(found) ? await found : found;
        await Promise.all(showing);
        if (value !== undefined && !code.trimEnd().endsWith(';')) await show(record, value, true);
      });
      work.catch(() => {});
      await Promise.race([broken, work]);
    } catch (error) {
      if (error instanceof Exit) {
        status = error.status;
      } else {
        status = error && error.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED' ? SIGINT_STATUS : 1;
        fail(record, error);
      }
    } finally {
      current = null;
    }
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    record.end = Buffer.from(`${record.run} ${status} ${record.count} ${runs}`);
    send('D', record.end);
    if (asked !== null) setImmediate(request, 'S', asked);
    asked = null;
  }

  function again(id, seen) {
    if (id !== kept.run || kept.end === null) {
      send('S', Buffer.from(`${runs} 1`));
      return;
    }
    for (const [number, kind, payload] of kept.answers) if (number >= seen) send(kind, payload);
    send('D', kept.end);
  }

  function request(kind, fields) {
    if (kind === 'S' && current !== null) {
      asked = fields;
      return null;
    }
    if (kind === 'S') {
      again(String(fields[0]), Number(fields[1]));
      return null;
    }
    if (kind !== 'R') return null;
    const variables = {};
    for (let at = 2; at + 1 < fields.length; at += 2) variables[String(fields[at])] = String(fields[at + 1]);
    return run(String(fields[0]), String(fields[1]), variables);
  }

  function broken(error) {
    if (current !== null) {
      current(error);
    } else if (!(error instanceof Exit)) {
      process.stderr.write(`Uncaught ${util.inspect(error)}\n`);
    }
  }
  server._domain?.removeAllListeners('error');
  server._domain?.on('error', broken);
  process.on('uncaughtException', broken);
  process.on('unhandledRejection', broken);
  function onInterrupt() {
    if (current !== null) current(interrupted());
  }
  function listen() {
    if (!process.listeners('SIGINT').includes(onInterrupt)) process.on('SIGINT', onInterrupt); // lost with a stack
  }
  listen();
  process.reallyExit = process.reallyExit || process.exit;
  process.exit = (status) => {
    const error = new Exit('process.exit');
    error.status = Number(status ?? process.exitCode ?? 0) & 255;
    throw error;
  };
  global.display = (...values) => {
    for (const value of values) {
      if (value !== null && typeof value === 'object' && value.raw === true && typeof value.data === 'object') {
        bundle(kept, value.data, false);
      } else {
        showing.push(show(kept, value, false));
      }
    }
    return undefined;
  };

  direct(process.stdout, 1);
  direct(process.stderr, 2);
  let unread = Buffer.alloc(0);
  let message = [];
  const requests = new net.Socket({ fd: 9, readable: true, writable: false });
  requests.on('data', (data) => {
    unread = Buffer.concat([unread, data]);
    while (unread.length >= 6) {
      const size = 6 + Number(unread.toString('latin1', 2, 6));
      if (unread.length < size) break;
      const place = Number(unread.toString('latin1', 1, 2));
      const kind = unread.toString('latin1', 0, 1);
      if (place & FIRST) message = [];
      message.push(unread.subarray(6, size));
      unread = unread.subarray(size);
      if (place & LAST) {
        const fields = split(Buffer.concat(message));
        if (kind === 'I') {
          if (String(fields[0]) === kept.run) onInterrupt();
        } else setImmediate(request, kind, fields); // a stack that was taken away may leave promises waiting
      }
    }
  });
  requests.on('end', () => process.reallyExit(0));
  send('H', Buffer.from(process.versions.node));
})
