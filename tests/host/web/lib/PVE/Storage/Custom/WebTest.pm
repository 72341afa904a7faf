package PVE::Storage::Custom::WebTest;

# A storage plugin as somebody else might bring it: no folder, and backups in its own way (from Proxmox VE 8.4 on).

use strict;
use warnings;

use base qw(PVE::Storage::Plugin);

sub api { return PVE::Storage::APIVER() }

sub type { return 'webtest' }

sub plugindata {
    return {
        content => [{ backup => 1, none => 1 }, { backup => 1 }],
        features => { 'backup-provider' => 1 },
    };
}

sub properties { return {} }

sub options {
    return {
        content => { optional => 1 }, nodes => { optional => 1 },
        disable => { optional => 1 } };
}

sub status { return (1 << 40, 1 << 39, 1 << 39, 1) }

sub list_volumes { return [] }

sub activate_storage { return 1 }

sub deactivate_storage { return 1 }

1;
