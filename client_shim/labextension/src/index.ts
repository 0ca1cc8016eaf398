/**
 * The plugins: Holdfast's state in JupyterLab's status bar, a toast after a failover, and no dialog
 * when the notebook server is away for a while.
 *
 * Shows nothing at all where the shim is not active in the notebook server.
 */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ConnectionLost, IConnectionLost } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { PageConfig } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { IStatusBar } from '@jupyterlab/statusbar';

import { Absence } from './connection';
import type { Toast } from './failover';
import { FrontKernel } from './front';
import { Monitor } from './monitor';
import { askStreams } from './server';
import { Status } from './status';
import { parseStream, SCHEMA_ID } from './stream';
import type { Schedule, Sink } from './toaster';
import { Toaster } from './toaster';

/** Milliseconds that a toast without losses stays. */
const SHORT = 5000;

const schedule: Schedule = (delay, call) => {
  window.setTimeout(call, delay);
};

function autoClose(toast: Toast): number | false {
  return toast.level === 'info' ? SHORT : false;
}

const sink: Sink = {
  show: toast => Notification.emit(toast.message, toast.level, { autoClose: autoClose(toast) }),
  update: (id, toast) =>
    Notification.update({
      id,
      message: toast.message,
      type: toast.level,
      autoClose: autoClose(toast)
    })
};

/** What both plugins share: there is one notebook server, so one monitor. */
let monitor: Monitor | null = null;
const absence = new Absence({
  held: () => monitor?.held ?? false,
  toast: message => Notification.emit(message, 'warning', { autoClose: SHORT })
});

function showStatus(app: JupyterFrontEnd, statusBar: IStatusBar | null): void {
  const { serviceManager, shell } = app;
  const front = new FrontKernel(shell);
  const toaster = new Toaster(sink, schedule);
  let status: Status | null = null;
  const made = new Monitor({
    ask: () => askStreams(serviceManager.serverSettings),
    schedule,
    changed: () => {
      if (made.phase === 'answering') {
        absence.over();
      }
      status?.refresh();
    },
    failover: failover => toaster.tell(failover),
    past: failover => toaster.remember(failover)
  });
  monitor = made;
  if (statusBar !== null) {
    status = new Status(front, made, toaster);
    putInto(statusBar, status);
  }
  serviceManager.events.stream.connect((_, event) => {
    const stream = event.schema_id === SCHEMA_ID ? parseStream(event) : null;
    if (stream !== null) {
      made.event(stream);
    }
  });
  askOnHints(app, front, made);
  void app.restored.then(() => front.look());
}

function putInto(statusBar: IStatusBar, status: Status): void {
  statusBar.registerStatusItem('holdfast-status:item', {
    item: status.item,
    align: 'left',
    rank: 2,
    // Stays in a narrow window, where items of no priority are hidden.
    priority: 1,
    isActive: () => status.active,
    activeStateChanged: status.activeChanged
  });
}

/** Ask again when something hints that the way to the notebook server broke or came back. */
function askOnHints(app: JupyterFrontEnd, front: FrontKernel, monitor: Monitor): void {
  const ask = (): void => void monitor.ask();
  let before = '';
  front.changed.connect(() => {
    const now = JSON.stringify(front.current);
    if (now !== before) {
      before = now;
      ask();
    }
  });
  app.serviceManager.connectionFailure.connect(ask);
  window.addEventListener('online', ask);
  window.addEventListener('offline', ask);
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) {
      ask();
    }
  });
  ask();
}

const status: JupyterFrontEndPlugin<void> = {
  id: 'holdfast-status:plugin',
  description: "Shows in the status bar whether Holdfast's gateway holds, and tells of failovers.",
  autoStart: true,
  optional: [IStatusBar],
  activate: showStatus
};

/** In the place of JupyterLab's dialog; see connection.ts. */
const connectionLost: JupyterFrontEndPlugin<IConnectionLost> = {
  id: 'holdfast-status:connection-lost',
  description: 'Keeps dialogs away while Holdfast keeps the kernels of an absent notebook server.',
  autoStart: true,
  provides: IConnectionLost,
  activate: () => async (manager, error, translator) => {
    const unanswered = error instanceof ServerConnection.NetworkError;
    if (!absence.lost(unanswered)) {
      await ConnectionLost(manager, error, translator);
    }
  }
};

// Behind JupyterHub a dialog of its own offers to start the notebook server again. Only one plugin
// can provide an answer to a lost connection, and there the hub's is the better one.
const plugins: JupyterFrontEndPlugin<unknown>[] =
  PageConfig.getOption('hubPrefix') === '' ? [status, connectionLost] : [status];

export default plugins;
