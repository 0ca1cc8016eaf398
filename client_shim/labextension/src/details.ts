/**
 * The content of the popup: what the state means, where the kernel is reached, the last failovers.
 *
 * Draws a `View` and knows nothing else. All text is set as text, never as HTML.
 */

import { Widget } from '@lumino/widgets';

import type { Label } from './label';

export interface View {
  readonly label: Label;
  /** Term and description, in order; empty descriptions are left out. */
  readonly facts: ReadonlyArray<readonly [string, string]>;
  /** The last failovers, newest first: when, and what came of it. */
  readonly failovers: ReadonlyArray<readonly [string, string]>;
}

let counter = 0;

export class Details extends Widget {
  private drawn = '';
  private readonly headingId = `hf-details-${++counter}`;

  constructor() {
    super();
    this.addClass('hf-Details');
    this.node.setAttribute('role', 'dialog');
    this.node.setAttribute('aria-labelledby', this.headingId);
    this.node.tabIndex = -1;
  }

  draw(view: View): void {
    // Only what differs is drawn again: a selection in the text should survive a question.
    const drawing = JSON.stringify(view);
    if (drawing === this.drawn) {
      return;
    }
    this.drawn = drawing;
    this.node.dataset.state = view.label.kind;
    const heading = element('h2', `${view.label.sign} Holdfast: ${view.label.heading}`);
    heading.id = this.headingId;
    this.node.replaceChildren(
      heading,
      element('p', view.label.advice),
      factList(view.facts),
      element('h3', 'Last failovers'),
      failoverList(view.failovers)
    );
  }

  protected override onAfterAttach(): void {
    this.node.focus();
  }
}

function factList(facts: View['facts']): HTMLElement {
  const list = document.createElement('dl');
  for (const [term, description] of facts) {
    if (description !== '') {
      list.append(element('dt', term), element('dd', description));
    }
  }
  return list;
}

function failoverList(failovers: View['failovers']): HTMLElement {
  if (failovers.length === 0) {
    return element('p', 'None since this page was loaded.');
  }
  const list = document.createElement('ul');
  for (const [when, what] of failovers) {
    const line = list.appendChild(document.createElement('li'));
    line.append(element('span', when), element('span', what));
  }
  return list;
}

function element(name: string, text: string): HTMLElement {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
