/**
 * What the page does when JupyterLab cannot ask for kernels: the notebook server does not answer,
 * or says 503 because no gateway does.
 *
 * JupyterLab itself opens a dialog over the whole page then, every time it has asked in vain, and
 * the reader must click it away although nothing is lost: cells go on, and the page reconnects by
 * itself. Where Holdfast keeps the kernels, the status bar tells it, and a toast when it is the
 * notebook server that is away, once for each absence. Elsewhere JupyterLab's own answer stands.
 *
 * Knows no DOM and no JupyterLab: its answer, the toast and what is known of the shim are handed in.
 */

export interface AbsenceOptions {
  /** Whether the shim was active when the notebook server last answered. */
  readonly held: () => boolean;
  readonly toast: (message: string) => void;
}

export const ABSENT =
  'The notebook server does not answer. Cells that run go on, and this page reconnects by itself.';

export class Absence {
  private told = false;

  constructor(private readonly options: AbsenceOptions) {}

  /**
   * A request failed; `unanswered`: without any answer of the notebook server.
   * False: JupyterLab's own reaction is the right one.
   */
  lost(unanswered: boolean): boolean {
    if (!this.options.held()) {
      return false;
    }
    if (unanswered && !this.told) {
      this.told = true;
      this.options.toast(ABSENT);
    }
    return true;
  }

  /** The notebook server answered: the next absence is another one. */
  over(): void {
    this.told = false;
  }
}
