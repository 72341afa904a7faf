//! Proxmox VE's VMA archive format.
