/**
 * A notebook front end without a screen: @jupyterlab/services as JupyterLab uses it, talking to a
 * gateway with no Jupyter Server in between.
 *
 * Reads one JSON command a line from stdin, writes one JSON event a line to stdout; see `commands`.
 * It reconnects only as the library does by itself, and neither counts nor judges: tests do.
 */
import { createInterface } from 'node:readline';

import { KernelManager, ServerConnection } from '@jupyterlab/services';
import { WebSocket } from 'ws';

/** Seconds of the system's monotonic clock, the one that Python's time.monotonic reads. */
const now = () => Number(process.hrtime.bigint()) / 1e9;
const tell = event => process.stdout.write(`${JSON.stringify({ at: now(), ...event })}\n`);

let manager = null;
let kernel = null;
/** The last input_request. */
let question = null;

/**
 * A browser's WebSocket can set no header, so there the token goes into the URL. Node's can, and
 * a program that can should: a token in a URL ends up in logs.
 */
function socketClass({ token, inQuery, legacy }) {
  const options = inQuery ? {} : { headers: { Authorization: `token ${token}` } };
  return class extends WebSocket {
    constructor(url, protocols) {
      super(url, legacy ? [] : protocols, { ...options, perMessageDeflate: false });
      this.addEventListener('open', () => tell({ event: 'open', protocol: this.protocol }));
      this.addEventListener('close', ({ code, reason }) => tell({ event: 'close', code, reason }));
      this.addEventListener('error', ({ message }) => tell({ event: 'error', message }));
    }
  };
}

function connectManager({ url, token, inQuery, legacy }) {
  manager = new KernelManager({
    serverSettings: ServerConnection.makeSettings({
      baseUrl: url,
      wsUrl: url.replace(/^http/, 'ws'),
      token,
      appendToken: inQuery,
      WebSocket: socketClass({ token, inQuery, legacy })
    })
  });
}

function watch(connection) {
  kernel = connection;
  connection.connectionStatusChanged.connect((_, status) => tell({ event: 'connection', status }));
  connection.statusChanged.connect((_, status) => tell({ event: 'status', status }));
  connection.disposed.connect(() => tell({ event: 'disposed' }));
  tell({ event: 'kernel', id: connection.id, session: connection.clientId });
}

function execute({ cell, code, answer }) {
  const future = kernel.requestExecute({
    code,
    allow_stdin: answer !== undefined,
    stop_on_error: false
  });
  tell({ event: 'sent', cell, msg_id: future.msg.header.msg_id });
  const told = (kind, msg) =>
    tell({ event: kind, cell, type: msg.header.msg_type, id: msg.header.msg_id, content: msg.content });
  future.onIOPub = msg => told('iopub', msg);
  future.onReply = msg => told('reply', msg);
  future.onStdin = msg => {
    told('stdin', msg);
    question = msg;
    if (answer !== null) {
      commands.input({ value: answer });
    }
  };
  future.done.then(
    reply => tell({ event: 'done', cell, status: reply.content.status }),
    error => tell({ event: 'cancelled', cell, message: error.message })
  );
}

/** What stdin may ask for. A promise that is rejected is told as `failed`, with its HTTP status. */
const commands = {
  start: async command => {
    connectManager(command);
    watch(await manager.startNew({ name: 'python3' }));
  },
  attach: async command => {
    connectManager(command);
    const model = { id: command.kernel, name: 'python3' };
    watch(manager.connectTo({ model, clientId: command.session }));
  },
  execute,
  /** The answer to an input_request that `execute` left open (`answer: null`). */
  input: ({ value }) => kernel.sendInputReply({ status: 'ok', value }, question.header),
  interrupt: () => kernel.interrupt(),
  restart: () => kernel.restart(),
  reconnect: () => kernel.reconnect(),
  refresh: () => manager.refreshRunning(),
  shutdown: () => kernel.shutdown()
};

async function obey(line) {
  const { call, ...command } = JSON.parse(line);
  try {
    await commands[command.do](command);
    tell({ event: 'ok', call });
  } catch (error) {
    tell({ event: 'failed', call, message: error.message, http: error.response?.status ?? null });
  }
}

// The library says on the console what it does; stdout is ours.
console.log = console.info = console.debug = console.warn = console.error;
process.on('unhandledRejection', error => tell({ event: 'unhandled', message: String(error) }));

createInterface({ input: process.stdin })
  .on('line', line => void obey(line))
  .on('close', () => process.exit(0));
