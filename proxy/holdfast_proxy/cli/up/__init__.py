"""`holdfast up`: etcd, proxies, launchers and JupyterLab as one supervised tree on loopback."""
