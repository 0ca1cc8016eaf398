// What is added to the configuration of JupyterLab's builder (package.json, jupyterlab.webpackConfig).
//
// webpack numbers modules by a hash of their names, and the name of a federated module's entry holds
// the absolute path of the source: the same source built in two folders gave different files. In the
// order of their use the numbers are the same anywhere.
module.exports = {
  optimization: { moduleIds: 'natural' }
};
