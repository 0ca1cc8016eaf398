/**
 * The plugin: Holdfast's state in JupyterLab's status bar, and a toast after a failover.
 *
 * Shows nothing at all where the shim is not active in the notebook server.
 */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ConnectionLost, IConnectionLost } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
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

function activate(app: JupyterFrontEnd, statusBar: IStatusBar | null): IConnectionLost {
  const { serviceManager, shell } = app;
  const front = new FrontKernel(shell);
  const toaster = new Toaster(sink, schedule);
  let status: Status | null = null;
  const monitor = new Monitor({
    ask: () => askStreams(serviceManager.serverSettings),
    schedule,
    changed: () => {
      if (monitor.phase === 'answering') {
        absence.over();
      }
      status?.refresh();
    },
    failover: failover => toaster.tell(failover),
    past: failover => toaster.remember(failover)
  });
  const absence = new Absence({
    held: () => monitor.held,
    toast: message => Notification.emit(message, 'warning', { autoClose: SHORT })
  });
  if (statusBar !== null) {
    const shown = (status = new Status(front, monitor, toaster));
    statusBar.registerStatusItem('holdfast-status:item', {
      item: shown.item,
      align: 'left',
      rank: 2,
      // Stays in a narrow window, where items of no priority are hidden.
      priority: 1,
      isActive: () => shown.active,
      activeStateChanged: shown.activeChanged
    });
  }
  serviceManager.events.stream.connect((_, event) => {
    const stream = event.schema_id === SCHEMA_ID ? parseStream(event) : null;
    if (stream !== null) {
      monitor.event(stream);
    }
  });
  askOnHints(app, front, monitor);
  void app.restored.then(() => front.look());
  return async (manager, error, translator) => {
    const unanswered = error instanceof ServerConnection.NetworkError;
    if (!absence.lost(unanswered)) {
      await ConnectionLost(manager, error, translator);
    }
  };
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

const plugin: JupyterFrontEndPlugin<IConnectionLost> = {
  id: 'holdfast-status:plugin',
  description: "Shows in the status bar whether Holdfast's gateway holds, and tells of failovers.",
  autoStart: true,
  optional: [IStatusBar],
  // In the place of JupyterLab's dialog; see connection.ts.
  provides: IConnectionLost,
  activate
};

export default plugin;
