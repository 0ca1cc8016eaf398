/**
 * Turns lib/ into the federated module that JupyterLab loads, with JupyterLab's own builder.
 *
 * `jupyter labextension build` does the same, but takes JupyterLab's list of shared packages from
 * whatever JupyterLab is installed, or downloads it. Here it comes from the lock, so that the same
 * source gives the same bytes anywhere, and no Python is needed.
 */

import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const builder = require.resolve('@jupyterlab/builder/lib/build-labextension.js');
const core = require.resolve('@jupyterlab/core-meta/core.package.json');

// The builder wants a folder in which the list is named package.json.
const corePath = mkdtempSync(join(tmpdir(), 'holdfast-core-'));
try {
  cpSync(core, join(corePath, 'package.json'));
  execFileSync(process.execPath, [builder, '--core-path', corePath, here], { stdio: 'inherit' });
} finally {
  rmSync(corePath, { recursive: true });
}
