/**
 * Asks the notebook server which streams there are.
 *
 * The only network access of this extension. It goes to JupyterLab's own server, never to a
 * gateway.
 */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { Answer } from './monitor';
import { parseSnapshot } from './stream';

/** Milliseconds: a server that is frozen takes connections and never answers. */
const PATIENCE = 5000;

export async function askStreams(settings: ServerConnection.ISettings): Promise<Answer> {
  // The question is not a sign of a person: it must not keep an idle server from being stopped.
  const url = `${URLExt.join(settings.baseUrl, 'api/holdfast/streams')}?no_track_activity=1`;
  const impatience = new AbortController();
  const timer = setTimeout(() => impatience.abort(), PATIENCE);
  try {
    const init: RequestInit = { cache: 'no-store', signal: impatience.signal };
    const response = await ServerConnection.makeRequest(url, init, settings);
    if (response.status === 404) {
      return 'absent';
    }
    return response.ok ? (parseSnapshot(await response.json()) ?? 'silent') : 'silent';
  } catch {
    // No connection, no time left, or no JSON (a login page, a proxy's error): no word of streams.
    return 'silent';
  } finally {
    clearTimeout(timer);
  }
}
