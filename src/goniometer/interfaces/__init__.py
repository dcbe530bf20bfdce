"""Potentials in engines that are not ASE: i-PI, in process and over sockets."""
