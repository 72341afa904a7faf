// pve-diff-backup
