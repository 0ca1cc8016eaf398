/**
 * Which kernel the document in front talks to, and whether the page's link to it is open.
 *
 * Works by shape: whatever has a `sessionContext` (a notebook, a console, a file editor's document)
 * counts, so that this extension depends on none of their packages. Rejected: notebook and console
 * trackers, which bring CodeMirror and all of rendermime into the build, and miss other documents.
 */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ISessionContext } from '@jupyterlab/apputils';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';
import type { Widget } from '@lumino/widgets';

export interface Front {
  readonly kernelId: string;
  /** What the front end's websocket gives as `session_id`. */
  readonly sessionId: string;
  /** The websocket to the notebook server is open. */
  readonly linked: boolean;
}

export class FrontKernel {
  private readonly _changed = new Signal<this, void>(this);
  private context: ISessionContext | null = null;

  constructor(private readonly shell: JupyterFrontEnd.IShell) {
    // Only shells with documents to choose from have the signal.
    shell.currentChanged?.connect(() => this.look());
    this.look();
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** null: what is in front has no kernel. */
  get current(): Front | null {
    const kernel = this.context?.session?.kernel ?? null;
    return kernel === null
      ? null
      : {
          kernelId: kernel.id,
          sessionId: kernel.clientId,
          linked: kernel.connectionStatus === 'connected'
        };
  }

  /** See who is in front now. */
  look(): void {
    const context = sessionContextOf(this.shell.currentWidget);
    if (context !== this.context) {
      this.listen(context);
    }
    this._changed.emit();
  }

  private listen(context: ISessionContext | null): void {
    if (this.context !== null) {
      Signal.disconnectBetween(this.context, this);
    }
    this.context = context;
    if (context !== null) {
      context.sessionChanged.connect(this.onChanged, this);
      context.kernelChanged.connect(this.onChanged, this);
      context.connectionStatusChanged.connect(this.onChanged, this);
      context.disposed.connect(this.onDisposed, this);
    }
  }

  private onChanged(): void {
    this._changed.emit();
  }

  private onDisposed(): void {
    this.context = null;
    this._changed.emit();
  }
}

function sessionContextOf(widget: Widget | null): ISessionContext | null {
  const shaped = widget as {
    sessionContext?: ISessionContext;
    context?: { sessionContext?: ISessionContext };
  } | null;
  return shaped?.sessionContext ?? shaped?.context?.sessionContext ?? null;
}
