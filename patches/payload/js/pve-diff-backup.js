// pve-diff-backup in the web interface: the field of backup jobs, and lists and windows that tell differential
// backups from full ones.
//
// Loaded by a line of ours in index.html.tpl, after Proxmox' own scripts and before the workspace is
// created.  It overrides classes, so nothing of Proxmox is edited; whatever goes wrong in it leaves the
// window or list as it was.  It runs with Ext JS 6 and 7.  What belongs together is told by the names in a list; what
// they cannot tell is asked of calls of our own, and a node that has none is shown without.  Not in strict mode:
// callParent of Ext JS does not allow that.

(function () {
    if (typeof Ext === 'undefined' || typeof PVE === 'undefined') {
        return;
    }

    // ---------------------------------------------------------------- texts

    // Our own texts in the interface's languages.  What is not here may be known to Proxmox' own catalogue.
    var CATALOGUE = {
        de: {
            'Full Every': 'Voll alle',
            day: 'Tag',
            days: 'Tage',
            'always full': 'immer voll',
            'Days between full backups. Those between hold only what changed since the last full one.':
                'Tage zwischen Vollbackups. Die Backups dazwischen enthalten nur, was sich seit dem letzten Vollbackup geändert hat.',
            'On Proxmox VE 8.4 and later those of running VMs read only what changed, if the job has fleecing (Advanced) and changed-blocks is set in /etc/pve/pve-diff-backup.conf; the log says why where everything was read.':
                'Ab Proxmox VE 8.4 lesen die von laufenden VMs nur, was sich geändert hat, wenn der Backup-Job Fleecing nutzt (Erweitert) und changed-blocks in /etc/pve/pve-diff-backup.conf gesetzt ist; das Log nennt den Grund, wo alles gelesen wurde.',
            'Not for Proxmox Backup Server.': 'Nicht für Proxmox Backup Server.',
            'not for PBS': 'nicht für PBS',
            'whole days, 0 to 365': 'ganze Tage, 0 bis 365',
            Kind: 'Art',
            Full: 'Voll',
            Differential: 'Differenziell',
            differential: 'differenziell',
            'Differential: only what changed since the last full backup of this guest; without a usable one a full backup is made.':
                'Differenziell: nur, was sich seit dem letzten Vollbackup dieses Gastes geändert hat; ohne ein brauchbares wird ein Vollbackup gemacht.',
            'Full Backup': 'Vollbackup',
            'Differential of {0}, made {1}': 'Differenziell zu {0} vom {1}',
            'That full backup is not in this list: without it nothing can be restored.':
                'Dieses Vollbackup fehlt in der Liste: ohne es lässt sich nichts wiederherstellen.',
            'Differential backups that need this full backup: {0}':
                'Differenzielle Backups, die dieses Vollbackup brauchen: {0}',
            'made {0}': 'vom {0}',
            'This full backup is missing on the storage. Put it back before you restore.':
                'Dieses Vollbackup fehlt auf dem Storage. Legen Sie es vor dem Wiederherstellen zurück.',
            'A differential backup needs this full backup: {0}. As long as it is there the full one cannot be removed.':
                'Ein differenzielles Backup braucht dieses Vollbackup: {0}. Solange es existiert, kann das Vollbackup nicht entfernt werden.',
            '{0} differential backups need this full backup: {1}. As long as they are there it cannot be removed.':
                '{0} differenzielle Backups brauchen dieses Vollbackup: {1}. Solange sie existieren, kann es nicht entfernt werden.',
            '{0} and {1} more': '{0} und {1} weitere',
            'Remove these {0} as well': 'Auch diese {0} entfernen',
            'Remove it as well': 'Auch dieses entfernen',
            'it is protected': 'es ist geschützt',
            'protected: {0}': 'geschützt: {0}',
            'Nothing was removed: the full backup is protected, or the list is out of date.': 'Nichts wurde entfernt: das Vollbackup ist geschützt, oder die Liste ist veraltet.',
            'needed by {0}': 'nötig für {0}',
            'its full backup is missing': 'sein Vollbackup fehlt',
            Guest: 'Gast',
            Newest: 'Neuestes',
            Stranded: 'Verwaist',
            Stored: 'Belegt',
            Saved: 'Gespart',
            Space: 'Platz',
            'full {0}, differential {1}, saved about {2}': 'voll {0}, differenziell {1}, gespart etwa {2}',
            'without their full backup: {0}': 'ohne ihr Vollbackup: {0}',
            'Guest, storage': 'Gast, Storage',
            'Not read: {0}': 'Nicht gelesen: {0}',
            'not for this kind of storage': 'nicht für diese Art von Storage',
            'Read the names of files in a backup': 'Dateinamen eines Backups lesen',
            'Send files of a backup': 'Dateien eines Backups senden',
            'The file systems of a VM are not read here. On node {0}, as root, these commands show its disks as files, without restoring them:':
                'Die Dateisysteme einer VM werden hier nicht gelesen. Auf Knoten {0} zeigen diese Befehle, als root, ihre Festplatten als Dateien, ohne sie wiederherzustellen:',
            'Use the disks read-only, for instance with losetup, qemu-nbd or guestmount (pve-xdelta3 vma mount --help). A guest that you do not trust is best looked at in another VM.':
                'Nutzen Sie die Festplatten nur lesend, etwa mit losetup, qemu-nbd oder guestmount (pve-xdelta3 vma mount --help). Einen Gast, dem Sie nicht trauen, betrachten Sie am besten in einer anderen VM.',
            'Verify backups': 'Backups verifizieren',
            'Make a full backup of a differential': 'Aus einem differenziellen ein Vollbackup machen',
            'Patch the node (pve-diff-backup)': 'Knoten patchen (pve-diff-backup)',
            never: 'niemals',
            '{0} cannot be restored': '{0} nicht wiederherstellbar',
            '{0} of {1} verified, last on {2}': '{0} von {1} verifiziert, zuletzt am {2}',
            'A verification on {0} found that this backup cannot be restored.':
                'Eine Verifizierung am {0} ergab, dass sich dieses Backup nicht wiederherstellen lässt.',
            patched: 'gepatcht',
            'not patched': 'nicht gepatcht',
            'partly patched, or by an older version': 'teilweise oder von einer älteren Version gepatcht',
            'not supported': 'nicht unterstützt',
            offline: 'offline',
            'not patched, or its services run older code': 'nicht gepatcht, oder seine Dienste laufen mit älterem Code',
            'This release was never tried with our lines; they match.':
                'Diese Version wurde mit unseren Zeilen nie erprobt; sie passen.',
            'Nothing is to be done.': 'Es ist nichts zu tun.',
            Node: 'Knoten',
            Nodes: 'Knoten',
            'To be done': 'Zu tun',
            Apply: 'Anwenden',
            Verify: 'Verifizieren',
            Consolidate: 'Zusammenführen',
            'Bring node {0} up to date? Its services then load the new code.':
                'Knoten {0} auf den neuesten Stand bringen? Seine Dienste laden dann den neuen Code.',
            'Read all backups of {0} on {1} to their end? That takes as long as to restore them.':
                'Alle Backups von {0} auf {1} bis zum Ende lesen? Das dauert so lange wie sie wiederherzustellen.',
            'Make a full backup of the differential of {0}? It keeps its date, notes and protection, and takes as much space as a full backup.':
                'Aus dem differenziellen Backup vom {0} ein Vollbackup machen? Es behält Datum, Notizen und Schutz und braucht so viel Platz wie ein Vollbackup.',
            'Backup Jobs': 'Backup-Jobs',
            'No backup jobs.': 'Keine Backup-Jobs.',
            Guests: 'Gäste',
            Backups: 'Backups',
            Verified: 'Verifiziert',
            'Differential of {0}': 'Differenziell zu {0}',
            'Choose a guest to see its backups.': 'Wählen Sie einen Gast, um seine Backups zu sehen.',
            Protected: 'Geschützt',
            Selection: 'Auswahl',
            Schedule: 'Zeitplan',
            Show: 'Anzeigen',
        },
        fr: {
            'Full Every': 'Totale après',
            day: 'jour',
            days: 'jours',
            'always full': 'toujours complète',
            'Days between full backups. Those between hold only what changed since the last full one.':
                'Jours entre deux sauvegardes complètes. Celles entre les deux ne contiennent que ce qui a changé depuis la dernière complète.',
            'On Proxmox VE 8.4 and later those of running VMs read only what changed, if the job has fleecing (Advanced) and changed-blocks is set in /etc/pve/pve-diff-backup.conf; the log says why where everything was read.':
                'À partir de Proxmox VE 8.4, celles des VM en marche ne lisent que ce qui a changé, si la tâche utilise le fleecing (Avancé) et si changed-blocks est défini dans /etc/pve/pve-diff-backup.conf ; le journal dit pourquoi tout a été lu.',
            'Not for Proxmox Backup Server.': 'Pas pour Proxmox Backup Server.',
            'not for PBS': 'pas pour PBS',
            'whole days, 0 to 365': 'jours entiers, de 0 à 365',
            Kind: 'Genre',
            Full: 'Complète',
            Differential: 'Différentielle',
            differential: 'différentielle',
            'Differential: only what changed since the last full backup of this guest; without a usable one a full backup is made.':
                'Différentielle : seulement ce qui a changé depuis la dernière sauvegarde complète de cet invité ; à défaut d\'une utilisable, la sauvegarde est complète.',
            'Full Backup': 'Sauvegarde complète',
            'Differential of {0}, made {1}': 'Différentielle de {0}, faite le {1}',
            'That full backup is not in this list: without it nothing can be restored.':
                'Cette sauvegarde complète n\'est pas dans la liste : sans elle, rien ne peut être restauré.',
            'Differential backups that need this full backup: {0}':
                'Sauvegardes différentielles qui ont besoin de cette sauvegarde complète : {0}',
            'made {0}': 'faite le {0}',
            'This full backup is missing on the storage. Put it back before you restore.':
                'Cette sauvegarde complète manque sur le stockage. Remettez-la avant de restaurer.',
            'A differential backup needs this full backup: {0}. As long as it is there the full one cannot be removed.':
                'Une sauvegarde différentielle a besoin de cette sauvegarde complète : {0}. Tant qu\'elle existe, la complète ne peut pas être supprimée.',
            '{0} differential backups need this full backup: {1}. As long as they are there it cannot be removed.':
                '{0} sauvegardes différentielles ont besoin de cette sauvegarde complète : {1}. Tant qu\'elles existent, elle ne peut pas être supprimée.',
            '{0} and {1} more': '{0} et {1} de plus',
            'Remove these {0} as well': 'Supprimer aussi ces {0}',
            'Remove it as well': 'La supprimer aussi',
            'it is protected': 'elle est protégée',
            'protected: {0}': 'protégées : {0}',
            'Nothing was removed: the full backup is protected, or the list is out of date.': 'Rien n\'a été supprimé : la sauvegarde complète est protégée, ou la liste n\'est plus à jour.',
            'needed by {0}': 'requise par {0}',
            'its full backup is missing': 'sauvegarde complète manquante',
            Guest: 'Invité',
            Newest: 'La plus récente',
            Stranded: 'Orphelines',
            Stored: 'Occupé',
            Saved: 'Économisé',
            Space: 'Espace',
            'full {0}, differential {1}, saved about {2}': 'complètes {0}, différentielles {1}, économisé environ {2}',
            'without their full backup: {0}': 'sans leur sauvegarde complète : {0}',
            'Guest, storage': 'Invité, stockage',
            'Not read: {0}': 'Non lus : {0}',
            'not for this kind of storage': 'pas pour ce type de stockage',
            'Read the names of files in a backup': 'Lire les noms des fichiers d\'une sauvegarde',
            'Send files of a backup': 'Envoyer des fichiers d\'une sauvegarde',
            'The file systems of a VM are not read here. On node {0}, as root, these commands show its disks as files, without restoring them:':
                'Les systèmes de fichiers d\'une VM ne sont pas lus ici. Sur le nœud {0}, en tant que root, ces commandes montrent ses disques comme des fichiers, sans les restaurer :',
            'Use the disks read-only, for instance with losetup, qemu-nbd or guestmount (pve-xdelta3 vma mount --help). A guest that you do not trust is best looked at in another VM.':
                'Utilisez les disques en lecture seule, par exemple avec losetup, qemu-nbd ou guestmount (pve-xdelta3 vma mount --help). Mieux vaut examiner dans une autre VM un invité auquel vous ne faites pas confiance.',
            'Verify backups': 'Vérifier les sauvegardes',
            'Make a full backup of a differential': 'Faire d\'une différentielle une sauvegarde complète',
            'Patch the node (pve-diff-backup)': 'Mettre à jour le nœud (pve-diff-backup)',
            never: 'jamais',
            '{0} cannot be restored': 'non restaurables : {0}',
            '{0} of {1} verified, last on {2}': '{0} sur {1} vérifiées, la dernière fois le {2}',
            'A verification on {0} found that this backup cannot be restored.':
                'Une vérification du {0} a montré que cette sauvegarde ne peut pas être restaurée.',
            patched: 'patché',
            'not patched': 'non patché',
            'partly patched, or by an older version': 'patché en partie, ou par une version antérieure',
            'not supported': 'non pris en charge',
            offline: 'hors ligne',
            'not patched, or its services run older code': 'non patché, ou ses services exécutent un code antérieur',
            'This release was never tried with our lines; they match.':
                'Cette version n\'a jamais été essayée avec nos lignes ; elles conviennent.',
            'Nothing is to be done.': 'Il n\'y a rien à faire.',
            Node: 'Nœud',
            Nodes: 'Nœuds',
            'To be done': 'À faire',
            Apply: 'Appliquer',
            Verify: 'Vérifier',
            Consolidate: 'Consolider',
            'Bring node {0} up to date? Its services then load the new code.':
                'Mettre à jour le nœud {0} ? Ses services chargent ensuite le nouveau code.',
            'Read all backups of {0} on {1} to their end? That takes as long as to restore them.':
                'Lire jusqu\'au bout toutes les sauvegardes de {0} sur {1} ? Cela prend autant de temps que de les restaurer.',
            'Make a full backup of the differential of {0}? It keeps its date, notes and protection, and takes as much space as a full backup.':
                'Faire de la différentielle du {0} une sauvegarde complète ? Elle garde sa date, ses notes et sa protection, et occupe autant de place qu\'une complète.',
            'Backup Jobs': 'Tâches de sauvegarde',
            'No backup jobs.': 'Aucune tâche de sauvegarde.',
            Guests: 'Invités',
            Backups: 'Sauvegardes',
            Verified: 'Vérifiée',
            'Differential of {0}': 'Différentielle du {0}',
            'Choose a guest to see its backups.': 'Choisissez un invité pour voir ses sauvegardes.',
            Protected: 'Protégée',
            Selection: 'Sélection',
            Schedule: 'Planification',
            Show: 'Afficher',
        },
        es: {
            'Full Every': 'Completo cada',
            day: 'día',
            days: 'días',
            'always full': 'siempre completo',
            'Days between full backups. Those between hold only what changed since the last full one.':
                'Días entre respaldos completos. Los intermedios solo contienen lo que cambió desde el último completo.',
            'On Proxmox VE 8.4 and later those of running VMs read only what changed, if the job has fleecing (Advanced) and changed-blocks is set in /etc/pve/pve-diff-backup.conf; the log says why where everything was read.':
                'Desde Proxmox VE 8.4, las de VM en ejecución leen solo lo que ha cambiado, si el trabajo usa fleecing (Avanzado) y changed-blocks está definido en /etc/pve/pve-diff-backup.conf; el registro dice por qué se leyó todo.',
            'Not for Proxmox Backup Server.': 'No para Proxmox Backup Server.',
            'not for PBS': 'no para PBS',
            'whole days, 0 to 365': 'días enteros, de 0 a 365',
            Kind: 'Tipo',
            Full: 'Completo',
            Differential: 'Diferencial',
            differential: 'diferencial',
            'Differential: only what changed since the last full backup of this guest; without a usable one a full backup is made.':
                'Diferencial: solo lo que cambió desde el último respaldo completo de este guest; si no hay uno utilizable, se hace uno completo.',
            'Full Backup': 'Respaldo completo',
            'Differential of {0}, made {1}': 'Diferencial de {0}, hecho el {1}',
            'That full backup is not in this list: without it nothing can be restored.':
                'Ese respaldo completo no está en la lista: sin él no se puede restaurar nada.',
            'Differential backups that need this full backup: {0}':
                'Respaldos diferenciales que necesitan este respaldo completo: {0}',
            'made {0}': 'hecho el {0}',
            'This full backup is missing on the storage. Put it back before you restore.':
                'Este respaldo completo falta en el almacenamiento. Devuélvalo antes de restaurar.',
            'A differential backup needs this full backup: {0}. As long as it is there the full one cannot be removed.':
                'Un respaldo diferencial necesita este respaldo completo: {0}. Mientras exista, el completo no se puede eliminar.',
            '{0} differential backups need this full backup: {1}. As long as they are there it cannot be removed.':
                '{0} respaldos diferenciales necesitan este respaldo completo: {1}. Mientras existan, no se puede eliminar.',
            '{0} and {1} more': '{0} y {1} más',
            'Remove these {0} as well': 'Eliminar también estos {0}',
            'Remove it as well': 'Eliminarlo también',
            'it is protected': 'está protegido',
            'protected: {0}': 'protegidos: {0}',
            'Nothing was removed: the full backup is protected, or the list is out of date.': 'No se ha eliminado nada: el respaldo completo está protegido, o la lista ya no es actual.',
            'needed by {0}': 'necesario para {0}',
            'its full backup is missing': 'falta su respaldo completo',
            Guest: 'Guest',
            Newest: 'El más reciente',
            Stranded: 'Huérfanos',
            Stored: 'Ocupado',
            Saved: 'Ahorrado',
            Space: 'Espacio',
            'full {0}, differential {1}, saved about {2}': 'completos {0}, diferenciales {1}, ahorrado aprox. {2}',
            'without their full backup: {0}': 'sin su respaldo completo: {0}',
            'Guest, storage': 'Guest, almacenamiento',
            'Not read: {0}': 'No leídos: {0}',
            'not for this kind of storage': 'no para este tipo de almacenamiento',
            'Read the names of files in a backup': 'Leer los nombres de archivos de un respaldo',
            'Send files of a backup': 'Enviar archivos de un respaldo',
            'The file systems of a VM are not read here. On node {0}, as root, these commands show its disks as files, without restoring them:':
                'Los sistemas de archivos de una VM no se leen aquí. En el nodo {0}, como root, estas órdenes muestran sus discos como archivos, sin restaurarlos:',
            'Use the disks read-only, for instance with losetup, qemu-nbd or guestmount (pve-xdelta3 vma mount --help). A guest that you do not trust is best looked at in another VM.':
                'Use los discos solo para lectura, por ejemplo con losetup, qemu-nbd o guestmount (pve-xdelta3 vma mount --help). Un guest en el que no confía se examina mejor en otra VM.',
            'Verify backups': 'Verificar respaldos',
            'Make a full backup of a differential': 'Hacer de un diferencial un respaldo completo',
            'Patch the node (pve-diff-backup)': 'Actualizar el nodo (pve-diff-backup)',
            never: 'nunca',
            '{0} cannot be restored': 'no restaurables: {0}',
            '{0} of {1} verified, last on {2}': '{0} de {1} verificados, la última vez el {2}',
            'A verification on {0} found that this backup cannot be restored.':
                'Una verificación del {0} mostró que este respaldo no se puede restaurar.',
            patched: 'parcheado',
            'not patched': 'sin parchear',
            'partly patched, or by an older version': 'parcheado en parte, o por una versión anterior',
            'not supported': 'no compatible',
            offline: 'desconectado',
            'not patched, or its services run older code': 'sin parchear, o sus servicios ejecutan código anterior',
            'This release was never tried with our lines; they match.':
                'Esta versión nunca se probó con nuestras líneas; encajan.',
            'Nothing is to be done.': 'No hay nada que hacer.',
            Node: 'Nodo',
            Nodes: 'Nodos',
            'To be done': 'Por hacer',
            Apply: 'Aplicar',
            Verify: 'Verificar',
            Consolidate: 'Consolidar',
            'Bring node {0} up to date? Its services then load the new code.':
                '¿Actualizar el nodo {0}? Sus servicios cargarán después el código nuevo.',
            'Read all backups of {0} on {1} to their end? That takes as long as to restore them.':
                '¿Leer hasta el final todos los respaldos de {0} en {1}? Tarda tanto como restaurarlos.',
            'Make a full backup of the differential of {0}? It keeps its date, notes and protection, and takes as much space as a full backup.':
                '¿Hacer del diferencial del {0} un respaldo completo? Conserva su fecha, notas y protección, y ocupa tanto espacio como uno completo.',
            'Backup Jobs': 'Trabajos de respaldo',
            'No backup jobs.': 'No hay trabajos de respaldo.',
            Guests: 'Guests',
            Backups: 'Respaldos',
            Verified: 'Verificado',
            'Differential of {0}': 'Diferencial del {0}',
            'Choose a guest to see its backups.': 'Elija un guest para ver sus respaldos.',
            Protected: 'Protegido',
            Selection: 'Selección',
            Schedule: 'Cronograma',
            Show: 'Mostrar',
        },
        it: {
            'Full Every': 'Completo ogni',
            day: 'giorno',
            days: 'giorni',
            'always full': 'sempre completo',
            'Days between full backups. Those between hold only what changed since the last full one.':
                'Giorni tra i backup completi. Quelli intermedi contengono solo ciò che è cambiato dall\'ultimo completo.',
            'On Proxmox VE 8.4 and later those of running VMs read only what changed, if the job has fleecing (Advanced) and changed-blocks is set in /etc/pve/pve-diff-backup.conf; the log says why where everything was read.':
                'Da Proxmox VE 8.4, quelli di VM in esecuzione leggono solo ciò che è cambiato, se il job usa il fleecing (Avanzate) e changed-blocks è impostato in /etc/pve/pve-diff-backup.conf; il log dice perché è stato letto tutto.',
            'Not for Proxmox Backup Server.': 'Non per Proxmox Backup Server.',
            'not for PBS': 'non per PBS',
            'whole days, 0 to 365': 'giorni interi, da 0 a 365',
            Kind: 'Tipo',
            Full: 'Completo',
            Differential: 'Differenziale',
            differential: 'differenziale',
            'Differential: only what changed since the last full backup of this guest; without a usable one a full backup is made.':
                'Differenziale: solo ciò che è cambiato dall\'ultimo backup completo di questo guest; senza uno utilizzabile si fa un backup completo.',
            'Full Backup': 'Backup completo',
            'Differential of {0}, made {1}': 'Differenziale di {0}, fatto il {1}',
            'That full backup is not in this list: without it nothing can be restored.':
                'Quel backup completo non è nell\'elenco: senza di esso non si può ripristinare nulla.',
            'Differential backups that need this full backup: {0}':
                'Backup differenziali che hanno bisogno di questo backup completo: {0}',
            'made {0}': 'fatto il {0}',
            'This full backup is missing on the storage. Put it back before you restore.':
                'Questo backup completo manca nello storage. Rimetterlo prima di ripristinare.',
            'A differential backup needs this full backup: {0}. As long as it is there the full one cannot be removed.':
                'Un backup differenziale ha bisogno di questo backup completo: {0}. Finché esiste, il completo non può essere rimosso.',
            '{0} differential backups need this full backup: {1}. As long as they are there it cannot be removed.':
                '{0} backup differenziali hanno bisogno di questo backup completo: {1}. Finché esistono, non può essere rimosso.',
            '{0} and {1} more': '{0} e altri {1}',
            'Remove these {0} as well': 'Rimuovere anche questi {0}',
            'Remove it as well': 'Rimuovere anche quello',
            'it is protected': 'è protetto',
            'protected: {0}': 'protetti: {0}',
            'Nothing was removed: the full backup is protected, or the list is out of date.': 'Nulla è stato rimosso: il backup completo è protetto, o l\'elenco non è più attuale.',
            'needed by {0}': 'serve a {0}',
            'its full backup is missing': 'manca il suo backup completo',
            Guest: 'Guest',
            Newest: 'Il più recente',
            Stranded: 'Orfani',
            Stored: 'Occupato',
            Saved: 'Risparmiato',
            Space: 'Spazio',
            'full {0}, differential {1}, saved about {2}': 'completi {0}, differenziali {1}, risparmiati circa {2}',
            'without their full backup: {0}': 'senza il loro backup completo: {0}',
            'Guest, storage': 'Guest, storage',
            'Not read: {0}': 'Non letti: {0}',
            'not for this kind of storage': 'non per questo tipo di storage',
            'Read the names of files in a backup': 'Leggi i nomi dei file di un backup',
            'Send files of a backup': 'Invia file di un backup',
            'The file systems of a VM are not read here. On node {0}, as root, these commands show its disks as files, without restoring them:':
                'I file system di una VM non vengono letti qui. Sul nodo {0}, come root, questi comandi mostrano i suoi dischi come file, senza ripristinarli:',
            'Use the disks read-only, for instance with losetup, qemu-nbd or guestmount (pve-xdelta3 vma mount --help). A guest that you do not trust is best looked at in another VM.':
                'Usi i dischi in sola lettura, per esempio con losetup, qemu-nbd o guestmount (pve-xdelta3 vma mount --help). Un guest di cui non si fida va esaminato in un\'altra VM.',
            'Verify backups': 'Verifica dei backup',
            'Make a full backup of a differential': 'Fare di un differenziale un backup completo',
            'Patch the node (pve-diff-backup)': 'Aggiornare il nodo (pve-diff-backup)',
            never: 'mai',
            '{0} cannot be restored': '{0} non ripristinabili',
            '{0} of {1} verified, last on {2}': '{0} di {1} verificati, l\'ultima volta il {2}',
            'A verification on {0} found that this backup cannot be restored.':
                'Una verifica del {0} ha mostrato che questo backup non può essere ripristinato.',
            patched: 'con patch',
            'not patched': 'senza patch',
            'partly patched, or by an older version': 'con patch in parte, o di una versione precedente',
            'not supported': 'non supportato',
            offline: 'offline',
            'not patched, or its services run older code': 'senza patch, o i suoi servizi eseguono codice precedente',
            'This release was never tried with our lines; they match.':
                'Questa versione non è mai stata provata con le nostre righe; combaciano.',
            'Nothing is to be done.': 'Non c\'è nulla da fare.',
            Node: 'Nodo',
            Nodes: 'Nodi',
            'To be done': 'Da fare',
            Apply: 'Applica',
            Verify: 'Verifica',
            Consolidate: 'Consolida',
            'Bring node {0} up to date? Its services then load the new code.':
                'Aggiornare il nodo {0}? I suoi servizi caricheranno poi il nuovo codice.',
            'Read all backups of {0} on {1} to their end? That takes as long as to restore them.':
                'Leggere fino in fondo tutti i backup di {0} su {1}? Richiede tanto tempo quanto ripristinarli.',
            'Make a full backup of the differential of {0}? It keeps its date, notes and protection, and takes as much space as a full backup.':
                'Fare del differenziale del {0} un backup completo? Mantiene data, note e protezione, e occupa tanto spazio quanto uno completo.',
            'Backup Jobs': 'Job di backup',
            'No backup jobs.': 'Nessun job di backup.',
            Guests: 'Guest',
            Backups: 'Backup',
            Verified: 'Verificato',
            'Differential of {0}': 'Differenziale di quello del {0}',
            'Choose a guest to see its backups.': 'Scegliere un guest per vederne i backup.',
            Protected: 'Protetto',
            Selection: 'Selezione',
            Schedule: 'Pianificazione',
            Show: 'Mostra',
        },
        zh_CN: {
            'Full Every': '完整备份间隔',
            day: '天',
            days: '天',
            'always full': '始终完整备份',
            'Days between full backups. Those between hold only what changed since the last full one.':
                '两次完整备份之间的天数。其间的备份只保存自上次完整备份以来的更改。',
            'On Proxmox VE 8.4 and later those of running VMs read only what changed, if the job has fleecing (Advanced) and changed-blocks is set in /etc/pve/pve-diff-backup.conf; the log says why where everything was read.':
                '自 Proxmox VE 8.4 起，如果作业启用了 Fleecing（高级）并且在 /etc/pve/pve-diff-backup.conf 中设置了 changed-blocks，则正在运行的虚拟机的差异备份只读取已更改的内容；如果读取了全部内容，日志会说明原因。',
            'Not for Proxmox Backup Server.': '不适用于 Proxmox Backup Server。',
            'not for PBS': '不适用于 PBS',
            'whole days, 0 to 365': '整数天数，0 到 365',
            Kind: '种类',
            Full: '完整',
            Differential: '差异',
            differential: '差异',
            'Differential: only what changed since the last full backup of this guest; without a usable one a full backup is made.':
                '差异：只保存自该客户机上次完整备份以来的更改；没有可用的完整备份时，将进行完整备份。',
            'Full Backup': '完整备份',
            'Differential of {0}, made {1}': '{0} 的差异备份，完整备份创建于 {1}',
            'That full backup is not in this list: without it nothing can be restored.':
                '列表中没有该完整备份：缺少它将无法还原。',
            'Differential backups that need this full backup: {0}': '依赖此完整备份的差异备份：{0}',
            'made {0}': '创建于 {0}',
            'This full backup is missing on the storage. Put it back before you restore.':
                '存储上缺少此完整备份。请先将其放回再还原。',
            'A differential backup needs this full backup: {0}. As long as it is there the full one cannot be removed.':
                '有 1 个差异备份依赖此完整备份：{0}。只要它存在，就无法删除此完整备份。',
            '{0} differential backups need this full backup: {1}. As long as they are there it cannot be removed.':
                '{0} 个差异备份依赖此完整备份：{1}。只要它们存在，就无法删除此完整备份。',
            '{0} and {1} more': '{0} 以及另外 {1} 个',
            'Remove these {0} as well': '同时删除这 {0} 个',
            'Remove it as well': '同时删除它',
            'it is protected': '它受保护',
            'protected: {0}': '其中 {0} 个受保护',
            'Nothing was removed: the full backup is protected, or the list is out of date.': '未移除任何内容：完整备份受保护，或列表已过时。',
            'needed by {0}': '被 {0} 个需要',
            'its full backup is missing': '缺少其完整备份',
            Guest: '客户机',
            Newest: '最新',
            Stranded: '孤立',
            Stored: '已占用',
            Saved: '已节省',
            Space: '空间',
            'full {0}, differential {1}, saved about {2}': '完整 {0}，差异 {1}，约节省 {2}',
            'without their full backup: {0}': '{0} 个缺少其完整备份',
            'Guest, storage': '客户机、存储',
            'Not read: {0}': '未能读取：{0}',
            'not for this kind of storage': '不适用于此类存储',
            'Read the names of files in a backup': '读取备份中的文件名',
            'Send files of a backup': '发送备份中的文件',
            'The file systems of a VM are not read here. On node {0}, as root, these commands show its disks as files, without restoring them:':
                '此处不读取虚拟机的文件系统。在节点 {0} 上以 root 身份运行以下命令，无需还原即可将其磁盘显示为文件：',
            'Use the disks read-only, for instance with losetup, qemu-nbd or guestmount (pve-xdelta3 vma mount --help). A guest that you do not trust is best looked at in another VM.':
                '请以只读方式使用这些磁盘，例如用 losetup、qemu-nbd 或 guestmount（pve-xdelta3 vma mount --help）。不受信任的客户机最好在另一台虚拟机中查看。',
            'Verify backups': '验证备份',
            'Make a full backup of a differential': '将差异备份变为完整备份',
            'Patch the node (pve-diff-backup)': '更新节点 (pve-diff-backup)',
            never: '从不',
            '{0} cannot be restored': '{0} 个无法还原',
            '{0} of {1} verified, last on {2}': '{1} 个中已验证 {0} 个，最近一次：{2}',
            'A verification on {0} found that this backup cannot be restored.': '{0} 的验证发现此备份无法还原。',
            patched: '已打补丁',
            'not patched': '未打补丁',
            'partly patched, or by an older version': '部分打补丁，或由旧版本打补丁',
            'not supported': '不支持',
            offline: '离线',
            'not patched, or its services run older code': '未打补丁，或其服务仍运行旧代码',
            'This release was never tried with our lines; they match.': '此版本从未与我们的代码行一起测试过，但两者相符。',
            'Nothing is to be done.': '无需处理。',
            Node: '节点',
            Nodes: '节点',
            'To be done': '待处理',
            Apply: '应用',
            Verify: '验证',
            Consolidate: '合并',
            'Bring node {0} up to date? Its services then load the new code.': '更新节点 {0}？其服务随后会加载新代码。',
            'Read all backups of {0} on {1} to their end? That takes as long as to restore them.':
                '完整读取 {1} 上 {0} 的所有备份？所需时间与还原它们相同。',
            'Make a full backup of the differential of {0}? It keeps its date, notes and protection, and takes as much space as a full backup.':
                '将 {0} 的差异备份变为完整备份？它保留日期、备注和保护，并占用与完整备份相同的空间。',
            'Backup Jobs': '备份作业',
            'No backup jobs.': '没有备份作业。',
            Guests: '客户机',
            Backups: '备份',
            Verified: '已验证',
            'Differential of {0}': '{0} 的差异备份',
            'Choose a guest to see its backups.': '选择客户机以查看其备份。',
            Protected: '受保护',
            Selection: '选择',
            Schedule: '计划',
            Show: '显示',
        },
    };

    var ours = CATALOGUE[(window.Proxmox && Proxmox.defaultLang) || ''] || {};

    // The message in the interface's language, its places {0}, {1} filled with what else is passed.
    var text = function (message) {
        var translated = ours[message];
        if (!translated) {
            translated = typeof gettext === 'function' ? gettext(message) : message;
        }
        return Ext.String.format.apply(null, [translated].concat(Array.prototype.slice.call(arguments, 1)));
    };

    var dayText = function (count) {
        return text(Number(count) === 1 ? 'day' : 'days');
    };

    // A tooltip's attribute: the text is encoded once for the attribute and once for the tooltip, which takes HTML.
    var tip = function (content) {
        return 'data-qtip="' + Ext.htmlEncode(Ext.htmlEncode(content)) + '"';
    };

    // ---------------------------------------------------------------- failing softly

    var warn = function (what, err) {
        if (window.console) {
            console.warn('pve-diff-backup: ' + what, err);
        }
    };

    // The function, or what the other one returns where it fails.
    var softly = function (what, fn, otherwise) {
        return function () {
            try {
                return fn.apply(this, arguments);
            } catch (err) {
                warn(what, err);
                return otherwise && otherwise.apply(this, arguments);
            }
        };
    };

    // Runs ours on each component of the class after Proxmox' own initComponent.
    var afterInit = function (name, fn) {
        if (!Ext.ClassManager.get(name)) {
            return; // not in this release
        }
        Ext.define('PveDiffBackup.' + name, {
            override: name,
            initComponent: function () {
                this.callParent(arguments);
                softly('nothing of ours in ' + name, fn)(this);
            },
        });
    };

    // Runs fn, which sends a request at once, with the request's options passed through change before.
    var changingRequest = function (change, fn) {
        var utils = Proxmox.Utils;
        var request = utils.API2Request;
        utils.API2Request = function (options) {
            softly('a request as ever', change)(options);
            return request.apply(this, arguments);
        };
        try {
            return fn();
        } finally {
            utils.API2Request = request;
        }
    };

    // ---------------------------------------------------------------- calls of our own

    // Asks the node; failed gets why not in words, in HTML, and whether the node has no such calls: it is not patched, or
    // its services run older code.
    var ask = function (node, call, params, done, failed) {
        Proxmox.Utils.API2Request({
            url: '/nodes/' + node + '/pve-diff-backup/' + call,
            params: params,
            method: 'GET',
            success: softly('no answer to ' + call, function (response) {
                done(response.result.data);
            }),
            failure: softly('no answer to ' + call, function (response) {
                failed && failed(response.htmlStatus, response.status === 501 || /not implemented/.test(response.htmlStatus));
            }),
        });
    };

    // Starts a task by one of our calls, after a question.  The task's window shows what is said, and ended is called when
    // it is closed.
    var startTask = function (question, node, call, params, ended) {
        Ext.Msg.confirm(text('Confirm'), Ext.htmlEncode(question), function (answer) {
            if (answer !== 'yes') {
                return;
            }
            Proxmox.Utils.API2Request({
                url: '/nodes/' + node + '/pve-diff-backup/' + call,
                params: params,
                method: 'POST',
                failure: function (response) {
                    Ext.Msg.alert(text('Error'), response.htmlStatus);
                },
                success: function (response) {
                    Ext.create('Proxmox.window.TaskViewer', {
                        upid: response.result.data,
                        listeners: { destroy: ended },
                    }).show();
                },
            });
        });
    };

    // The names of our tasks, in Proxmox' lists of tasks.
    softly('tasks by their short names', function () {
        Ext.apply(Proxmox.Utils.task_desc_table || PVE.Utils.task_desc_table, {
            diffverify: ['VM/CT', text('Verify backups')],
            diffconsolidate: ['VM/CT', text('Make a full backup of a differential')],
            diffapply: ['', text('Patch the node (pve-diff-backup)')],
            diffindex: ['VM/CT', text('Read the names of files in a backup')],
            diffdownload: ['VM/CT', text('Send files of a backup')],
        });
    })();

    // ---------------------------------------------------------------- names of backups

    var STAMP = '(\\d{4}_\\d\\d_\\d\\d-\\d\\d_\\d\\d_\\d\\d)';
    var NAME = new RegExp(
        '^(?:[^:/]*:backup/)?((vzdump-(qemu|lxc|openvz)-[1-9]\\d{2,8}-)' + STAMP + '\\.(?:tgz|(vma|tar)(?:\\.(?:zst|lzo|gz))?))' +
            '(--differential-' + STAMP + '\\.vcdiff(?:\\.(zst|lzo|gz))?)?$'
    );

    // Whether there is such a time.
    var isTime = function (stamp) {
        var parts = Ext.Array.map(stamp.split(/[_-]/), Number);
        var time = new Date(Date.UTC(parts[0], parts[1] - 1, parts[2], parts[3], parts[4], parts[5]));
        return parts[0] >= 1970 && time.toISOString().substr(0, 19) === date(stamp).replace(' ', 'T');
    };

    // 2026_11_21-01_00_00 as the lists show it.
    var date = function (stamp) {
        return stamp.substr(0, 10).replace(/_/g, '-') + ' ' + stamp.substr(11).replace(/_/g, ':');
    };

    // What a volume ID says: { name, id, made, format, compression } and, of a differential, base (its full's name) and
    // baseMade.  The id is that of the full however it is compressed, since its content is what counts.
    var parse = function (volid) {
        var match = NAME.exec(volid || '');
        if (!match || !isTime(match[4]) || (match[7] && !isTime(match[7])) || (match[3] === 'lxc' && match[5] === 'vma')) {
            return null;
        }
        var result = {
            name: match[1] + (match[6] || ''),
            id: match[2] + match[4],
            made: date(match[7] || match[4]),
            format: match[5] || 'tar',
            compression: match[8],
        };
        if (match[6]) {
            result.base = match[1];
            result.baseMade = date(match[4]);
            result.short = match[2] + '…' + match[6];
        }
        return result;
    };

    // For the tests, and for who looks with the browser's console.
    Ext.apply(Ext.ns('PveDiffBackup'), { parse: parse, text: text });

    // Which backups of a list belong together: { fulls: {id: 1}, needing: {id: [records]} }, of all its records, also
    // of those that a search hides.
    var chains = function (store) {
        var data = store.getData();
        data = (data.getSource && data.getSource()) || data;
        var known = store.pveDiffBackupChains;
        if (known && known.data === data && known.generation === data.generation) {
            return known;
        }
        known = { data: data, generation: data.generation, fulls: {}, needing: {} };
        data.each(function (record) {
            var info = parse(record.data.volid);
            if (info && info.base) {
                (known.needing[info.id] = known.needing[info.id] || []).push(record);
            } else if (info) {
                known.fulls[info.id] = 1;
            }
        });
        store.pveDiffBackupChains = known;
        return known;
    };

    // The differentials of a list that need the record's full backup.
    var needing = function (store, record) {
        var info = record && parse(record.data.volid);
        return (info && !info.base && chains(store).needing[info.id]) || [];
    };

    // ---------------------------------------------------------------- lists of backups

    // The date of a differential is the second one of its name; Proxmox takes the first.
    softly('the dates of differentials are those of their fulls', function () {
        var model = Ext.ClassManager.get('pve-storage-content');
        var own = function (record) {
            var info = record.data.volid && parse(record.data.volid);
            return info ? info.made : '';
        };
        var field = model && model.getField('vdate');
        if (field) {
            var convert = field.convert;
            field.convert = function (value, record) {
                var made = value ? '' : softly('no date', own)(record);
                return made || convert.call(this, value, record);
            };
        } else if (model) { // up to 6.1 there is no date
            model.addFields([
                {
                    name: 'vdate',
                    convert: function (value, record) {
                        return value || own(record);
                    },
                },
            ]);
        }
    })();

    var TAG = 'style="box-shadow:inset 0 0 0 1px;border-radius:3px;padding:0 4px;opacity:0.8;font-size:90%"';

    // A differential begins with its sign, since the end of a long name is what a narrow column cuts off.
    var renderName = function (info, record, store, name) {
        var known = chains(store);
        if (info.base) {
            var about = text('Differential of {0}, made {1}', info.base, info.baseMade);
            var sign = 'fa-level-up fa-rotate-90';
            if (!known.fulls[info.id]) {
                about += '. ' + text('That full backup is not in this list: without it nothing can be restored.');
                sign = 'fa-exclamation-triangle warning';
            }
            return '<span ' + tip(info.name + ': ' + about) + '><i class="fa fa-fw ' + sign + '"></i> ' +
                Ext.htmlEncode(info.short) + '</span>';
        }
        var count = (known.needing[info.id] || []).length;
        return count
            ? '<span ' + TAG + ' ' + tip(text('Differential backups that need this full backup: {0}', count)) +
                '><i class="fa fa-files-o"></i> ' + count + '</span> ' + name
            : name;
    };

    var renderFormat = function (info, record, store, format) {
        return info.base
            ? Ext.htmlEncode([text('differential'), info.format].concat(info.compression || []).join(', '))
            : format;
    };

    // The column with what Proxmox shows there passed through ours, for names that we know.
    var wrapRenderer = function (column, ours) {
        var before = column.renderer;
        var shown = function (value, meta, record) {
            return before ? before.apply(this, arguments) : Ext.htmlEncode(value);
        };
        column.renderer = softly('a cell is shown as ever', function (value, meta, record, row, col, store) {
            var info = parse(record.data.volid);
            var name = shown.apply(this, arguments);
            return info ? ours(info, record, store, name) : name;
        }, shown);
        column.hasCustomRenderer = true;
    };

    // Up to 6.4 lists are sorted by name, in which a differential stands at its full's date.
    var sortByOwnDate = function (store) {
        var byName = store.getSorters().findBy(function (sorter) {
            return sorter.getProperty() === 'volid';
        });
        if (byName) {
            store.getSorters().remove(byName);
            store.setSorters({
                property: 'volid',
                transform: function (volid) {
                    var info = parse(volid);
                    return info ? info.id.replace(/[^-]*-[^-]*$/, '') + info.made : volid;
                },
            });
        }
    };

    var showChains = function (grid) {
        var hasDate = false;
        var place = -1;
        Ext.Array.each(grid.headerCt.getGridColumns(), function (column, index) {
            if (column.dataIndex === 'volid' || column.dataIndex === 'text') {
                wrapRenderer(column, renderName);
            } else if (column.dataIndex === 'format') {
                wrapRenderer(column, renderFormat);
                column.width = Math.max(column.width || 0, 150);
                place = index;
            }
            hasDate = hasDate || column.dataIndex === 'vdate';
        });
        sortByOwnDate(grid.getStore());
        if (!hasDate && place >= 0) {
            grid.headerCt.insert(place, {
                header: text('Date'),
                width: 150,
                dataIndex: 'vdate',
            });
        }
    };

    // ---------------------------------------------------------------- the page of all nodes, jobs and chains

    // Sums up one storage's backups, one row for each guest.  What a differential saves is told by its full's size,
    // which is about what another full backup would have taken.
    var sumUp = function (node, storage, volumes) {
        var rows = {};
        var fullSizes = {};
        var known = Ext.Array.map(volumes, function (volume) {
            var info = parse(volume.volid);
            if (info && !info.base) {
                fullSizes[info.id] = volume.size || 0;
            }
            return info;
        });
        Ext.Array.each(volumes, function (volume, at) {
            var info = known[at];
            if (!info) {
                return;
            }
            var guest = info.id.split('-')[1] + '/' + info.id.split('-')[2];
            var row = rows[guest] = rows[guest] || {
                id: storage + '/' + guest, guest: guest, node: node, storage: storage, newest: '',
                fulls: 0, differentials: 0, stranded: 0, fullSize: 0, differentialSize: 0, saved: 0, backups: [],
            };
            var size = volume.size || 0;
            row.backups.push({
                volid: volume.volid, node: node, storage: storage, guest: guest, size: size,
                made: info.made, base: info.base, baseMade: info.baseMade, format: info.format, compression: info.compression,
                isStranded: !!info.base && fullSizes[info.id] === undefined,
                saved: info.base && fullSizes[info.id] !== undefined ? Math.max(0, fullSizes[info.id] - size) : null,
                isProtected: !!volume['protected'],
            });
            row.newest = info.made > row.newest ? info.made : row.newest;
            if (!info.base) {
                row.fulls++;
                row.fullSize += size;
                return;
            }
            row.differentials++;
            row.differentialSize += size;
            if (fullSizes[info.id] === undefined) {
                row.stranded++;
            } else {
                row.saved += Math.max(0, fullSizes[info.id] - size);
            }
        });
        return Ext.Object.getValues(rows);
    };
    PveDiffBackup.sumUp = sumUp;

    // Adds to the rows what the last verifications found.
    var addVerified = function (rows, found) {
        var results = {};
        Ext.Array.each(found, function (result) {
            results[result.volid] = result;
        });
        Ext.Array.each(rows, function (row) {
            row.checked = row.bad = row.checkedAt = 0;
            Ext.Array.each(row.backups, function (backup) {
                var result = results[backup.volid];
                if (result) {
                    backup.checkedAt = result.at;
                    backup.isGood = !!Number(result.good);
                    row.checked++;
                    row.bad += backup.isGood ? 0 : 1;
                    row.checkedAt = Math.max(row.checkedAt, result.at);
                }
            });
        });
    };

    var icon = function (name) {
        return '<i class="fa fa-fw ' + name + '"></i> ';
    };
    var GOOD = 'fa-check good';
    var BAD = 'fa-times critical';
    var WARNING = 'fa-exclamation-triangle warning';

    // When that was, as lists show dates; HTML.
    var timeText = function (seconds) {
        return Ext.Date.format(new Date(1000 * seconds), 'Y-m-d H:i');
    };

    // The last verification of a guest's backups, or of one backup.
    var renderVerified = function (value, meta, record) {
        var data = record.data;
        if (data.backups) {
            var total = data.backups.length;
            if (!data.checked) {
                return text('never');
            }
            var sign = data.bad ? BAD : data.checked === total ? GOOD : '';
            var about = (data.bad ? text('{0} cannot be restored', data.bad) + '. ' : '') +
                text('{0} of {1} verified, last on {2}', data.checked, total, timeText(data.checkedAt));
            return '<span ' + tip(about) + '>' + (sign && icon(sign)) +
                (data.bad ? Ext.htmlEncode(text('{0} cannot be restored', data.bad)) :
                    data.checked === total ? timeText(data.checkedAt) : data.checked + '/' + total) + '</span>';
        }
        return data.checkedAt
            ? icon(data.isGood ? GOOD : BAD) + timeText(data.checkedAt)
            : text('never');
    };

    var sizeText = function (size) {
        return (Proxmox.Utils.format_size ? Proxmox : PVE).Utils.format_size(size); // PVE's up to 5.0
    };

    // Full, differential and saved, as parts of what full backups alone would have taken.
    var renderSpace = function (value, meta, record) {
        var data = record.data;
        var total = data.fullSize + data.differentialSize + data.saved || 1;
        var part = function (size, style) {
            return '<div style="display:inline-block;height:10px;width:' + (100 * size / total).toFixed(2) + '%;' + style + '"></div>';
        };
        var about = text('full {0}, differential {1}, saved about {2}',
            sizeText(data.fullSize), sizeText(data.differentialSize), sizeText(data.saved));
        return '<div ' + tip(about) + ' style="font-size:0;line-height:14px;white-space:nowrap">' +
            part(data.fullSize, 'background:#3892d4') + part(data.differentialSize, 'background:#f0ad4e') +
            part(data.saved, 'background:rgba(128,128,128,0.25)') + '</div>';
    };

    // The storages with backups that this user sees, each shared one once.
    var backupStorages = function () {
        var seen = {};
        var found = [];
        PVE.data.ResourceStore.each(function (record) {
            var data = record.data;
            if (data.type !== 'storage' || data.plugintype === 'pbs' || (data.status && data.status !== 'available') ||
                (data.content && data.content.split(',').indexOf('backup') < 0)) {
                return;
            }
            var key = data.shared ? data.storage : data.id;
            if (!seen[key]) {
                seen[key] = 1;
                found.push(data);
            }
        });
        return found;
    };

    // Whether the user has a privilege on anything of that kind, as Proxmox' own buttons ask before the server does.
    var mayDo = function (kind, privilege) {
        var caps = Ext.state.Manager.get('GuiCap') || {};
        return !!(caps[kind] && caps[kind][privilege]);
    };

    // A list in the page that does not load by itself.
    var listConfig = function (name, fields, sorter, columns) {
        return {
            stateful: true,
            stateId: 'grid-diff-backup-' + name,
            border: false,
            store: Ext.create('Ext.data.Store', { fields: fields, sorters: sorter, data: [] }),
            columns: columns,
        };
    };

    // A button for the selected row of its list, where fits() says so.
    var rowButton = function (title, sign, fits, handler) {
        return {
            text: text(title),
            iconCls: 'fa fa-' + sign,
            disabled: true,
            fits: fits,
            handler: function (button) {
                var record = button.up('grid').getSelection()[0];
                record && handler(record.data, button.up('pveDiffBackupPage'));
            },
        };
    };

    // Enables the list's buttons by what is selected.
    var watchButtons = function (grid) {
        var look = function () {
            var record = grid.getSelection()[0];
            Ext.Array.each(grid.query('button[fits]'), function (button) {
                button.setDisabled(!record || !button.fits(record.data));
            });
        };
        grid.on('selectionchange', look);
        grid.getStore().on({ datachanged: look, update: look });
    };

    // ------------------------------------------------------------ its nodes

    var STATES = {
        patched: [GOOD, 'patched'],
        unpatched: [BAD, 'not patched'],
        mixed: [WARNING, 'partly patched, or by an older version'],
        unsupported: [BAD, 'not supported'],
        away: ['fa-question-circle', 'offline'],
        unknown: [BAD, 'not patched, or its services run older code'],
    };

    var renderState = function (value, meta, record) {
        var state = STATES[value];
        if (!state) {
            return record.data.reason ? icon(WARNING) + record.data.reason : '';
        }
        var isOdd = value === 'patched' && (record.data.attention.length || record.data.isUnverified);
        return icon(isOdd ? WARNING : state[0]) + Ext.htmlEncode(text(state[1]));
    };

    // What doctor says of a node, in a window.
    var showAdvice = function (data) {
        var paragraphs = Ext.Array.map(data.attention, function (advice) {
            return '<li style="margin-bottom:10px">' + Ext.htmlEncode(advice).replace(/\n/g, '<br>') + '</li>';
        });
        if (data.isUnverified) {
            paragraphs.push('<li>' + Ext.htmlEncode(text('This release was never tried with our lines; they match.')) + '</li>');
        }
        Ext.create('Ext.window.Window', {
            title: text('Node') + ' ' + Ext.htmlEncode(data.node),
            width: 640,
            maxHeight: 480,
            modal: true,
            scrollable: true,
            bodyPadding: 10,
            html: paragraphs.length
                ? '<ul style="padding-left:20px;margin:0">' + paragraphs.join('') + '</ul>'
                : Ext.htmlEncode(text('Nothing is to be done.')),
            buttons: [{ text: text('Close'), handler: function (button) { button.up('window').close(); } }],
        }).show();
    };

    softly('no page of nodes, jobs and chains', function () {
        Ext.define('PveDiffBackup.Nodes', {
            extend: 'Ext.grid.Panel',
            alias: 'widget.pveDiffBackupNodes',
            initComponent: function () {
                var me = this;
                Ext.apply(me, listConfig('nodes', ['node', 'state'], [{ property: 'node' }], [
                    { header: text('Node'), dataIndex: 'node', width: 120, renderer: Ext.htmlEncode },
                    { header: text('Status'), dataIndex: 'state', flex: 3, minWidth: 180, renderer: renderState },
                    {
                        header: text('To be done'), dataIndex: 'attention', flex: 3, minWidth: 120, sortable: false,
                        renderer: function (value) {
                            var first = (value && value[0]) || '';
                            return first
                                ? '<span ' + tip(value.join('\n\n')) + '>' + (value.length > 1 ? '(' + value.length + ') ' : '') +
                                    Ext.htmlEncode(first.split('\n')[0]) + '</span>'
                                : '';
                        },
                    },
                    { header: text('Version'), dataIndex: 'program', width: 90, renderer: Ext.htmlEncode },
                ]), {
                    tbar: [
                        rowButton('Show', 'stethoscope', function (data) { return !!data.attention; }, showAdvice),
                        rowButton('Apply', 'wrench', function (data) {
                            // up to 7.4 nobody is told what they may do to the datacenter
                            return !!STATES[data.state] && !!data.program && (mayDo('dc', 'Sys.Modify') || mayDo('nodes', 'Sys.Modify'));
                        }, function (data, page) {
                            startTask(text('Bring node {0} up to date? Its services then load the new code.', data.node),
                                data.node, 'apply', {}, function () { page.reload(); });
                        }),
                    ],
                    listeners: {
                        itemdblclick: function (view, record) { record.data.attention && showAdvice(record.data); },
                    },
                });
                me.callParent();
                watchButtons(me);
            },

            reload: function () {
                var store = this.store;
                var rows = [];
                PVE.data.ResourceStore.each(function (record) {
                    var data = record.data;
                    if (data.type === 'node') {
                        rows.push({ id: data.node, node: data.node, state: data.status === 'offline' ? 'away' : '' });
                    }
                });
                store.loadData(rows);
                Ext.Array.each(rows, function (row) {
                    var set = function (values) {
                        var record = store.getById(row.id);
                        record && record.set(values, { commit: true });
                    };
                    if (row.state === 'away') {
                        return;
                    }
                    ask(row.node, 'status', {}, function (status) {
                        set({
                            state: status.overall, program: status.program, attention: status.attention || [],
                            isUnverified: status.verified !== undefined && !Number(status.verified),
                        });
                    }, function (reason, isUnknown) {
                        set(isUnknown ? { state: 'unknown' } : { state: 'failed', reason: reason });
                    });
                });
            },
        });

        // -------------------------------------------------------- its jobs

        Ext.define('PveDiffBackup.Jobs', {
            extend: 'Ext.grid.Panel',
            alias: 'widget.pveDiffBackupJobs',
            initComponent: function () {
                var me = this;
                Ext.apply(me, listConfig('jobs', ['id'], [{ property: 'id' }], [
                    {
                        header: text('Enabled'), dataIndex: 'enabled', width: 80, align: 'center',
                        renderer: function (value) {
                            return icon(value === undefined || Number(value) ? 'fa-check' : 'fa-minus');
                        },
                    },
                    {
                        header: text('Full Every'), dataIndex: 'fullbackup', width: 140,
                        renderer: function (value) { return renderDays(value); },
                    },
                    {
                        header: text('Schedule'), dataIndex: 'schedule', width: 130,
                        renderer: function (value, meta, record) {
                            return Ext.htmlEncode(value || [record.data.dow, record.data.starttime].join(' '));
                        },
                    },
                    { header: text('Storage'), dataIndex: 'storage', width: 135, renderer: Ext.htmlEncode },
                    {
                        header: text('Selection'), dataIndex: 'vmid', flex: 1, minWidth: 100,
                        renderer: function (value, meta, record) {
                            var data = record.data;
                            return Ext.htmlEncode(value || (data.pool ? text('Pool') + ': ' + data.pool : text('All')));
                        },
                    },
                    {
                        header: text('Comment'), dataIndex: 'comment', flex: 1, minWidth: 110,
                        renderer: function (value, meta, record) { return Ext.htmlEncode(value || record.data.id); },
                    },
                ]), { emptyText: text('No backup jobs.') });
                me.callParent();
            },

            reload: function () {
                var store = this.store;
                Proxmox.Utils.API2Request({
                    url: '/cluster/backup',
                    method: 'GET',
                    failure: Ext.emptyFn, // who may not see the jobs sees none
                    success: function (response) {
                        store.loadData(response.result.data);
                    },
                });
            },
        });

        // -------------------------------------------------------- its guests

        Ext.define('PveDiffBackup.Chains', {
            extend: 'Ext.grid.Panel',
            alias: 'widget.pveDiffBackupChains',
            initComponent: function () {
                var me = this;
                var number = function (title, field, width) {
                    return { header: text(title), dataIndex: field, width: width, align: 'right' };
                };
                Ext.apply(me, listConfig('chains', ['id', 'guest', 'node', 'storage', 'newest'],
                    [{ property: 'guest' }, { property: 'storage' }], [
                        {
                            header: text('Guest'), dataIndex: 'guest', flex: 2, minWidth: 150,
                            renderer: function (value, meta, record) {
                                return Ext.htmlEncode(value + (record.data.name ? ' (' + record.data.name + ')' : ''));
                            },
                        },
                        // what is seen at once comes first, since the last columns of a narrow window are out of sight
                        { header: text('Space'), dataIndex: 'saved', flex: 3, minWidth: 120, sortable: false, renderer: renderSpace },
                        { header: text('Verified'), dataIndex: 'checkedAt', width: 180, renderer: renderVerified },
                        {
                            header: text('Stranded'), dataIndex: 'stranded', width: 120, align: 'right',
                            renderer: function (value) {
                                return value
                                    ? '<span ' + tip(text('without their full backup: {0}', value)) + '>' + icon(WARNING) + value + '</span>'
                                    : '';
                            },
                        },
                        number('Full', 'fulls', 105),
                        number('Differential', 'differentials', 140),
                        {
                            header: text('Stored'), dataIndex: 'fullSize', width: 115, align: 'right',
                            renderer: function (value, meta, record) {
                                return sizeText(value + record.data.differentialSize);
                            },
                        },
                        Ext.apply(number('Saved', 'saved', 115), { renderer: sizeText }),
                        { header: text('Newest'), dataIndex: 'newest', width: 170 },
                        { header: text('Storage'), dataIndex: 'storage', width: 135, renderer: Ext.htmlEncode },
                    ]), {
                    tbar: [
                        rowButton('Verify', 'check-square-o', function () {
                            return mayDo('storage', 'Datastore.AllocateSpace') && mayDo('vms', 'VM.Backup');
                        }, function (data, page) {
                            startTask(text('Read all backups of {0} on {1} to their end? That takes as long as to restore them.',
                                data.guest, data.storage), data.node, 'verify',
                            { storage: data.storage, vmid: data.guest.split('/')[1] }, function () { page.reload(); });
                        }),
                        { xtype: 'tbtext', itemId: 'unread', hidden: true },
                        '->',
                        text('Search') + ':', ' ',
                        {
                            xtype: 'textfield',
                            width: 200,
                            emptyText: text('Guest, storage'),
                            enableKeyEvents: true,
                            listeners: {
                                buffer: 300,
                                keyup: function (field) {
                                    var wanted = field.getValue().toLowerCase();
                                    me.store.clearFilter(true);
                                    me.store.filterBy(function (record) {
                                        var data = record.data;
                                        return (data.guest + ' ' + data.name + ' ' + data.storage).toLowerCase().indexOf(wanted) >= 0;
                                    });
                                },
                            },
                        },
                    ],
                    listeners: {
                        selectionchange: function (model, records) {
                            me.up('pveDiffBackupPage').showBackups(records[0] && records[0].data);
                        },
                    },
                });
                me.callParent();
                watchButtons(me);
            },

            // Asks each storage at the same time and shows what comes; a storage that does not answer is named.
            reload: function () {
                var me = this;
                var storages = backupStorages();
                var rows = [];
                var unread = [];
                var open = storages.length;
                var show = function () {
                    if (open-- > 1 || me.destroyed || me.isDestroyed) {
                        return;
                    }
                    me.setLoading(false);
                    var chosen = me.getSelection()[0];
                    me.store.loadData(rows);
                    var again = me.store.getById(chosen ? chosen.id : rows.length === 1 && rows[0].id);
                    again && me.getSelectionModel().select(again);
                    // a row that was selected before is not told of anew
                    me.up('pveDiffBackupPage').showBackups(again && again.data);
                    var note = me.down('#unread');
                    note.setText(Ext.htmlEncode(text('Not read: {0}', unread.join(', '))));
                    note.setVisible(unread.length > 0);
                };
                if (!open) {
                    open = 1;
                    show();
                    return;
                }
                me.setLoading(true);
                Ext.Array.each(storages, function (storage) {
                    var unreadable = function () {
                        unread.push(storage.storage + ' (' + storage.node + ')');
                        show();
                    };
                    Proxmox.Utils.API2Request({
                        url: '/nodes/' + storage.node + '/storage/' + storage.storage + '/content',
                        params: { content: 'backup' },
                        method: 'GET',
                        failure: unreadable,
                        success: softly('a list that cannot be read', function (response) {
                            var found = sumUp(storage.node, storage.storage, response.result.data);
                            var named = Ext.Array.map(found, function (row) {
                                var guest = PVE.data.ResourceStore.findRecord('vmid', row.guest.split('/')[1], 0, false, true, true);
                                row.id += '/' + storage.node;
                                row.name = (guest && guest.data.name) || '';
                                return row;
                            });
                            rows = rows.concat(named);
                            if (!found.length) {
                                show();
                                return;
                            }
                            ask(storage.node, 'verified', { storage: storage.storage }, function (results) {
                                softly('results that cannot be read', addVerified)(found, results);
                                show();
                            }, show);
                        }, unreadable),
                    });
                });
            },
        });

        // -------------------------------------------------------- the backups of one guest

        Ext.define('PveDiffBackup.Backups', {
            extend: 'Ext.grid.Panel',
            alias: 'widget.pveDiffBackupBackups',
            initComponent: function () {
                var me = this;
                Ext.apply(me, listConfig('backups', ['volid', 'made'], [{ property: 'made', direction: 'DESC' }], [
                    { header: text('Date'), dataIndex: 'made', width: 170 },
                    {
                        header: text('Kind'), dataIndex: 'base', flex: 2, minWidth: 230,
                        renderer: function (value, meta, record) {
                            var data = record.data;
                            if (!value) {
                                return icon('fa-files-o') + Ext.htmlEncode(text('Full'));
                            }
                            return icon(data.isStranded ? WARNING : 'fa-level-up fa-rotate-90') +
                                Ext.htmlEncode(text(data.isStranded ? 'its full backup is missing' : 'Differential of {0}', data.baseMade));
                        },
                    },
                    { header: text('Size'), dataIndex: 'size', width: 115, align: 'right', renderer: sizeText },
                    {
                        header: text('Saved'), dataIndex: 'saved', width: 115, align: 'right',
                        renderer: function (value) { return value === null ? '' : sizeText(value); },
                    },
                    { header: text('Verified'), dataIndex: 'checkedAt', width: 165, renderer: renderVerified },
                    {
                        header: text('Protected'), dataIndex: 'isProtected', width: 100, align: 'center',
                        renderer: function (value) { return value ? icon('fa-shield') : ''; },
                    },
                ]), {
                    emptyText: text('Choose a guest to see its backups.'),
                    tbar: [
                        rowButton('Consolidate', 'compress', function (data) {
                            return !!data.base && !data.isStranded && mayDo('storage', 'Datastore.AllocateSpace') && mayDo('vms', 'VM.Backup');
                        }, function (data, page) {
                            startTask(text(
                                'Make a full backup of the differential of {0}? It keeps its date, notes and protection, and takes as much space as a full backup.',
                                data.made
                            ), data.node, 'consolidate', { volume: data.volid }, function () { page.reload(); });
                        }),
                    ],
                });
                me.callParent();
                watchButtons(me);
            },
        });

        Ext.define('PveDiffBackup.Page', {
            extend: 'Ext.panel.Panel',
            alias: 'widget.pveDiffBackupPage',
            layout: { type: 'vbox', align: 'stretch' },
            scrollable: 'y',
            initComponent: function () {
                var me = this;
                Ext.apply(me, {
                    tbar: [
                        { text: text('Reload'), iconCls: 'fa fa-refresh', handler: function () { me.reload(); } },
                    ],
                    items: [
                        // as high as what is in them, within limits
                        { xtype: 'pveDiffBackupNodes', title: text('Nodes'), collapsible: true, minHeight: 130, maxHeight: 220 },
                        { xtype: 'pveDiffBackupJobs', title: text('Backup Jobs'), collapsible: true, minHeight: 95, maxHeight: 180 },
                        { xtype: 'pveDiffBackupChains', title: text('Guests'), flex: 1, minHeight: 200 },
                        { xtype: 'pveDiffBackupBackups', title: text('Backups'), flex: 1, minHeight: 200 },
                    ],
                    listeners: { activate: function () { me.reload(); } },
                });
                me.callParent();
            },

            reload: function () {
                if (!this.destroyed && !this.isDestroyed) {
                    Ext.Array.each(this.query('pveDiffBackupNodes, pveDiffBackupJobs, pveDiffBackupChains'), function (list) {
                        softly('a list of the page is not read', list.reload).call(list);
                    });
                }
            },

            // Shows the backups of a guest, none without.
            showBackups: function (row) {
                var list = this.down('pveDiffBackupBackups');
                list.setTitle(text('Backups') + (row ? ': ' + Ext.htmlEncode(row.guest + ', ' + row.storage) : ''));
                list.getStore().loadData(row ? row.backups : []);
            },
        });

        // Below the datacenter's backup jobs, for who sees those.
        var addTab = function (items) {
            for (var at = 0; at < items.length; at++) {
                if (items[at].itemId === 'backup') {
                    items.splice(at + 1, 0, {
                        xtype: 'pveDiffBackupPage',
                        iconCls: 'fa fa-files-o',
                        title: text('Differential'),
                        itemId: 'differential',
                    });
                    return;
                }
            }
        };
        Ext.define('PveDiffBackup.Config', {
            override: 'PVE.panel.Config',
            initComponent: function () {
                if (this.$className === 'PVE.dc.Config') {
                    softly('no page of nodes, jobs and chains', addTab)(this.items);
                }
                this.callParent(arguments);
            },
        });
    })();

    // ---------------------------------------------------------------- removal

    // Up to three dates, and how many more there are.
    var someDates = function (records) {
        var dates = Ext.Array.map(records, function (record) {
            return parse(record.data.volid).made;
        }).sort();
        var some = dates.slice(0, 3).join(', ');
        return dates.length > 3 ? text('{0} and {1} more', some, dates.length - 3) : some;
    };

    // Removes the backup at url and calls done once that is over; the server answers with a task where it takes long.
    var removeOne = function (url, done, failed) {
        var failure = function (response) {
            failed(response.htmlStatus);
        };
        var ended = function (upid) {
            Proxmox.Utils.API2Request({
                url: '/nodes/' + upid.split(':')[1] + '/tasks/' + encodeURIComponent(upid) + '/status',
                method: 'GET',
                failure: failure,
                success: function (response) {
                    var task = response.result.data;
                    if (task.status === 'running') {
                        Ext.defer(ended, 1000, null, [upid]);
                    } else if (task.exitstatus === 'OK' || /^WARNINGS/.test(task.exitstatus)) {
                        done();
                    } else {
                        failed(Ext.htmlEncode(task.exitstatus));
                    }
                },
            });
        };
        Proxmox.Utils.API2Request({
            url: url + '?delay=5',
            method: 'DELETE',
            failure: failure,
            success: function (response) {
                var upid = response.result.data;
                upid ? ended(upid) : done();
            },
        });
    };

    // Calls done where the server still has what the list shows: the full, which is not protected, and these differentials of
    // it and no others.  Else failed gets why not, in HTML: no differential may go for a full that stays.
    var checkList = function (button, full, records, done, failed) {
        var refuse = function () {
            failed(Ext.htmlEncode(text('Nothing was removed: the full backup is protected, or the list is out of date.')));
        };
        var isAsShown = function (volumes) {
            var id = parse(full.data.volid).id;
            var isThere = false;
            var isProtected = false;
            var needing = [];
            Ext.Array.each(volumes, function (volume) {
                var info = parse(volume.volid);
                if (info && info.id === id) {
                    isThere = isThere || volume.volid === full.data.volid;
                    isProtected = isProtected || !!volume['protected'];
                    info.base && needing.push(volume.volid);
                }
            });
            var shown = Ext.Array.map(records, function (record) {
                return record.data.volid;
            });
            return isThere && !isProtected && needing.sort().join() === shown.sort().join();
        };
        var list = /^\/nodes\/[^\/]+\/storage\/[^\/]+\/content(?=\/)/.exec(button.getUrl(full));
        if (!list) {
            refuse();
            return;
        }
        Proxmox.Utils.API2Request({
            url: list[0],
            params: { content: 'backup' },
            method: 'GET',
            failure: function (response) {
                failed(response.htmlStatus);
            },
            success: function (response) {
                softly('a list that cannot be read', isAsShown)(response.result.data) ? done() : refuse();
            },
        });
    };

    // Removes the differentials one after another, then calls done; the first failure ends it, and nothing else goes.
    var removeAll = function (button, full, records, done) {
        var urls = Ext.Array.map(records, function (record) {
            return button.getUrl(record);
        });
        var failed = function (reason) {
            Ext.Msg.hide();
            Ext.Msg.alert(text('Error'), reason);
            Ext.callback(button.callback, button.scope, [{}, false, {}], 0, button);
        };
        var next = function (at) {
            if (at === urls.length) {
                Ext.Msg.hide();
                done();
                return;
            }
            Ext.Msg.updateProgress(at / urls.length, at + '/' + urls.length);
            removeOne(urls[at], function () {
                next(at + 1);
            }, failed);
        };
        Ext.Msg.show({ title: text('Please wait...'), closable: false, progress: true, progressText: '0/' + urls.length });
        checkList(button, full, records, function () {
            next(0);
        }, failed);
    };

    // Up to 6.4 the server adds to a task's error in which line of its code it was passed on.
    var plainReason = function (options) {
        var failure = options.failure;
        options.failure = function (response) {
            response.htmlStatus = response.htmlStatus.replace(/ at \/\S+\.pm line \d+\.?\s*(?= \(500\)|$)/, '');
            return failure.apply(this, arguments);
        };
    };

    // Proxmox' question with a box to tick.  Without the tick the server is asked as ever, and says why not.
    var askRemoval = function (button, record, records) {
        var isProtected = Ext.Array.filter(records, function (other) {
            return other.data['protected'];
        }).length;
        var isOne = records.length === 1;
        var label = isOne ? text('Remove it as well') : text('Remove these {0} as well', records.length);
        var obstacle = isOne ? text('it is protected') : text('protected: {0}', isProtected);
        var box = Ext.create('Ext.form.field.Checkbox', {
            name: 'removeDifferentials',
            disabled: !!isProtected,
            boxLabel: isProtected ? label + ' (' + obstacle + ')' : label,
        });
        var message = Ext.create('Ext.window.MessageBox', { closeAction: 'destroy' });
        message.promptContainer.add(box);
        message.show({
            title: text('Confirm'),
            icon: Ext.Msg.WARNING,
            message: button.confirmMsg(record) + '<br><br>' + Ext.htmlEncode(
                isOne
                    ? text('A differential backup needs this full backup: {0}. As long as it is there the full one cannot be removed.',
                        someDates(records))
                    : text('{0} differential backups need this full backup: {1}. As long as they are there it cannot be removed.',
                        records.length, someDates(records))
            ),
            buttons: Ext.Msg.YESNO,
            defaultFocus: 'no',
            fn: function (answer) {
                var full = function () {
                    changingRequest(plainReason, function () {
                        button.self.prototype.handler.call(button, button, null, record);
                    });
                };
                if (answer === 'yes') {
                    box.getValue() ? removeAll(button, record, records, full) : full();
                }
            },
        });
    };

    var guardRemoval = function (grid) {
        var button = grid.down('proxmoxStdRemoveButton');
        if (!button) {
            return;
        }
        var handler = button.handler;
        var plain = function () {
            Ext.callback(handler, button.scope, arguments, 0, button);
        };
        button.handler = softly('removal as ever', function () {
            var record = grid.getSelectionModel().getSelection()[0];
            var records = record ? needing(grid.getStore(), record) : [];
            records.length ? askRemoval(button, record, records) : plain.apply(this, arguments);
        }, plain);
    };

    Ext.Array.each(['PVE.grid.BackupView', 'PVE.storage.ContentView'], function (name) {
        afterInit(name, function (grid) {
            softly('the list as ever', showChains)(grid);
            softly('removal as ever', guardRemoval)(grid);
        });
    });

    // ---------------------------------------------------------------- files of backups

    // Proxmox has a button for this on a Proxmox Backup Server's storages only; ours is there on those whose backups are
    // files, with Proxmox' own window.  What it asks is answered by lines of ours behind Proxmox' calls.

    // Of what kind of guest a backup is, '' where neither its name nor the list tells.
    var guestKind = function (data) {
        var named = /:backup\/vzdump-(qemu|lxc|openvz)-/.exec(data.volid);
        return named ? (named[1] === 'qemu' ? 'qemu' : 'lxc') : data.subtype || '';
    };

    // What would be damaged is told before it is sent: a download cannot say so any more.
    var checkBefore = function (win, url, volume) {
        var controller = win.getController();
        var download = controller.downloadFile;
        controller.downloadFile = function () {
            var passed = arguments;
            var record = controller.lookup('tree').getSelection()[0];
            var go = function () {
                download.apply(controller, passed);
            };
            if (!record || record.data.type === 'd') {
                go();
                return;
            }
            Proxmox.Utils.API2Request({
                url: url,
                params: { volume: volume, filepath: record.data.filepath },
                method: 'GET',
                timeout: 60000,
                waitMsgTarget: win,
                failure: function (response) {
                    Ext.Msg.alert(text('Error'), response.htmlStatus);
                },
                success: go,
            });
        };
    };

    var browseFiles = function (node, storage, data) {
        var url = '/nodes/' + node + '/storage/' + storage + '/file-restore/';
        var win = Ext.create('Proxmox.window.FileBrowser', {
            title: text('File Restore') + ' - ' + Ext.htmlEncode(data.text || data.volid),
            listURL: '/api2/json' + url + 'list',
            downloadURL: '/api2/json' + url + 'download',
            downloadUrl: '/api2/json' + url + 'download', // its name in the first release
            extraParams: { volume: data.volid },
        });
        softly('files are sent without a look before', checkBefore)(win, url + 'list', data.volid);
        win.show();
    };

    // A VM's file systems are its own: nothing of the host reads them.
    var showCommands = function (node, storage, data) {
        Proxmox.Utils.API2Request({
            url: '/nodes/' + node + '/storage/' + storage + '/content/' + data.volid,
            method: 'GET',
            failure: function (response) {
                Ext.Msg.alert(text('Error'), response.htmlStatus);
            },
            success: function (response) {
                var path = "'" + String(response.result.data.path).replace(/'/g, "'\\''") + "'";
                var commands = [
                    'mkdir -p /mnt/backup',
                    'pve-xdelta3 vma mount ' + path + ' /mnt/backup',
                    'ls -l /mnt/backup',
                    'umount /mnt/backup',
                ];
                var paragraph = function (content) {
                    return '<p style="margin:0 0 10px">' + Ext.htmlEncode(content) + '</p>';
                };
                Ext.create('Ext.window.Window', {
                    title: text('File Restore') + ' - ' + Ext.htmlEncode(data.text || data.volid),
                    name: 'diffCommands',
                    width: 700,
                    maxHeight: 480,
                    modal: true,
                    scrollable: true,
                    bodyPadding: 10,
                    html: paragraph(text(
                        'The file systems of a VM are not read here. On node {0}, as root, these commands show its disks as files, without restoring them:',
                        node
                    )) + '<pre style="white-space:pre-wrap;word-break:break-all;user-select:text;margin:0 0 10px">' +
                        Ext.htmlEncode(commands.join('\n')) + '</pre>' + paragraph(text(
                        'Use the disks read-only, for instance with losetup, qemu-nbd or guestmount (pve-xdelta3 vma mount --help). A guest that you do not trust is best looked at in another VM.'
                    )),
                    buttons: [{ text: text('Close'), handler: function (button) { button.up('window').close(); } }],
                }).show();
            },
        });
    };

    // The storage that a list shows: its name and kind.
    var storageOf = function (grid) {
        var field = grid.down('pveStorageSelector');
        if (!field) {
            var known = PVE.data.ResourceStore.getById('storage/' + grid.pveSelNode.data.node + '/' + grid.storage);
            return { name: grid.storage, kind: grid.pluginType || (known && known.data.plugintype) };
        }
        var name = field.getValue();
        var record = name && field.getStore().findRecord('storage', name, 0, false, true, true);
        return { name: name, kind: record && record.data.type };
    };

    var addFileRestore = function (grid) {
        var bar = grid.down('toolbar');
        var node = grid.pveSelNode && grid.pveSelNode.data.node;
        if (!bar || !node || !Ext.ClassManager.get('Proxmox.window.FileBrowser')) {
            return;
        }
        var at = -1;
        bar.items.each(function (item, index) {
            if (item.text === text('Restore')) {
                at = index;
            }
        });
        var button = bar.insert(at + 1, {
            xtype: 'button',
            name: 'diffFileRestore',
            text: text('File Restore'),
            disabled: true,
            handler: function () {
                var record = grid.getSelectionModel().getSelection()[0];
                var show = record && { lxc: browseFiles, qemu: showCommands }[guestKind(record.data)];
                show && show(node, storageOf(grid).name, record.data);
            },
        });
        var look = softly('no files of this backup', function () {
            var record = grid.getSelectionModel().getSelection()[0];
            button.setHidden(FILE_STORAGES.indexOf(storageOf(grid).kind) < 0);
            button.setDisabled(!record || !guestKind(record.data));
        });
        grid.getSelectionModel().on('selectionchange', look);
        grid.getStore().on('load', look);
        look();
    };

    Ext.Array.each(['PVE.grid.BackupView', 'PVE.storage.BackupView'], function (name) {
        afterInit(name, softly('no files of backups', addFileRestore));
    });

    // ---------------------------------------------------------------- restore

    afterInit('PVE.window.Restore', function (win) {
        var info = parse(win.volid);
        var form = win.down('form');
        if (!info || !info.base || !form) {
            return;
        }
        var hint = Ext.create('Ext.form.field.Display', { userCls: 'pmx-hint', hidden: true, name: 'fullBackupHint' });
        form.insert(1, [
            {
                xtype: 'displayfield',
                name: 'fullBackupName',
                fieldLabel: text('Full Backup'),
                value: Ext.htmlEncode(info.base + ' (' + text('made {0}', info.baseMade) + ')'),
            },
            hint,
        ]);
        var told = [];
        var show = function (html) {
            if (!hint.destroyed && !hint.isDestroyed) {
                told.push(html);
                hint.setValue(told.join('<br>'));
                hint.setHidden(false);
            }
        };
        Proxmox.Utils.API2Request({
            url: '/nodes/' + win.nodename + '/storage/' + win.volid.split(':')[0] + '/content',
            params: { content: 'backup' },
            method: 'GET',
            success: softly('no look at the full backup', function (response) {
                var isThere = Ext.Array.some(response.result.data, function (other) {
                    var full = parse(other.volid);
                    return full && !full.base && full.id === info.id;
                });
                if (isThere) {
                    ask(win.nodename, 'verified', { storage: win.volid.split(':')[0] }, function (found) {
                        var result = Ext.Array.findBy(found, function (one) {
                            return one.volid === win.volid;
                        });
                        if (result && !Number(result.good)) {
                            show(Ext.htmlEncode(text(
                                'A verification on {0} found that this backup cannot be restored.', timeText(result.at)
                            )));
                        }
                    });
                }
                if (!isThere) {
                    show(text('This full backup is missing on the storage. Put it back before you restore.'));
                } else if (!win.down('field[name=cores]')) { // up to 6.4 the window does not read the archive
                    Proxmox.Utils.API2Request({
                        url: '/nodes/' + win.nodename + '/vzdump/extractconfig',
                        params: { volume: win.volid },
                        method: 'GET',
                        failure: function (answer) {
                            show(answer.htmlStatus);
                        },
                    });
                }
            }),
        });
    });

    // ---------------------------------------------------------------- prune preview

    // Why each backup is kept, as Proxmox' own list says it: its rules count, in their order, what they keep.  A full
    // backup that only its differentials keep is not counted, nor is a differential without its full.
    var keepReasons = function (backups, keep) {
        var fulls = {};
        Ext.Array.each(backups, function (backup) {
            var info = parse(backup.volid);
            if (info && !info.base) {
                fulls[info.id] = 1;
            }
        });
        var rules = Ext.Array.filter(
            ['keep-last', 'keep-hourly', 'keep-daily', 'keep-weekly', 'keep-monthly', 'keep-yearly'],
            function (rule) {
                return keep[rule] > 0;
            }
        );
        var count = 0;
        Ext.Array.each(backups.slice().sort(function (a, b) { return b.ctime - a.ctime; }), function (backup) {
            var info = parse(backup.volid);
            if (backup.mark !== 'keep') {
                return;
            }
            if (backup['needed-by']) {
                backup.keepReason = text('needed by {0}', backup['needed-by']);
            } else if (info && info.base && !fulls[info.id]) {
                backup.keepReason = text('its full backup is missing');
            } else if (!rules.length) {
                backup.keepReason = 'keep-all';
            } else {
                backup.keepReason = rules[0] + ': ' + ++count;
                if (count >= keep[rules[0]]) {
                    rules.shift();
                    count = 0;
                }
            }
        });
    };

    afterInit('PVE.PruneInputPanel', function (panel) {
        var store = panel.pruneStore;
        var setData = store.setData;
        store.setData = function (data) {
            softly('reasons as ever', function () {
                keepReasons(data, PVE.Parser.parsePropertyString(panel.getValues()['prune-backups']) || {});
            })();
            return setData.apply(this, arguments);
        };
    });

    // ---------------------------------------------------------------- backup jobs

    // The kinds of storages where a backup is a file; a plugin of somebody else's may have another way.
    var FILE_STORAGES = ['btrfs', 'cephfs', 'cifs', 'dir', 'glusterfs', 'nfs'];

    // Calls fn with why no differentials are made on the storage that is chosen in the window, '' where they are, now and on
    // each change.
    var watchStorage = function (win, fn) {
        var field = win.down('field[name=storage]');
        if (!field) {
            return;
        }
        var look = softly('the kind of storage is not known', function () {
            var chosen = field.getValue();
            var record = field.getStore().findRecord('storage', chosen, 0, false, true, true);
            var type = record && record.data.type;
            fn(type === 'pbs' ? text('not for PBS') : '');
            if (type && type !== 'pbs' && FILE_STORAGES.indexOf(type) < 0) {
                ask(Proxmox.NodeName, 'storages', {}, function (storages) {
                    var found = Ext.Array.findBy(storages, function (one) {
                        return one.storage === chosen;
                    });
                    if (found && !Number(found.differential) && !win.destroyed && !win.isDestroyed && field.getValue() === chosen) {
                        fn(text('not for this kind of storage'));
                    }
                });
            }
        });
        field.on('change', look);
        win.mon(field.getStore(), 'load', look);
        look();
    };

    // The field as the window needs it: an empty value is not sent, or removed from an existing job that had one.  A job
    // that lost its value to a node without our lines keeps its right to it, whatever else is changed in this window.
    // Of Ext JS' own kind (4 to 7), since Proxmox' came and changed its name later.
    var fieldConfig = function (isCreate) {
        return {
            xtype: 'numberfield',
            name: 'fullbackup',
            flex: 1,
            emptyText: text('always full'),
            minValue: 0,
            maxValue: 365,
            allowBlank: true,
            allowDecimals: false,
            allowExponential: false, // with it a point, e, + and - can be typed
            // what is pasted and no whole number stays as it is, to be refused instead of rounded
            parseValue: function (value) {
                return /^\s*\d+\s*$/.test(String(value)) ? parseInt(value, 10) : null;
            },
            validator: function (value) {
                return /^\d*$/.test(String(value)) || text('whole days, 0 to 365');
            },
            getSubmitData: function () {
                if (this.disabled) {
                    return null;
                }
                var data = {};
                var value = this.getSubmitValue();
                var before = this.originalValue;
                if (value !== null && value !== '') {
                    data[this.getName()] = value;
                } else if (!isCreate && before !== undefined && before !== null && before !== '') {
                    data['delete'] = this.getName();
                }
                return data;
            },
            listeners: {
                change: function (field, value) {
                    var unit = field.nextSibling();
                    var isNumber = value !== null && value !== '';
                    unit.update(Ext.htmlEncode(Number(value) === 0 ? text('always full') : dayText(value)));
                    unit.setVisible(isNumber);
                },
            },
        };
    };

    // The field with its unit behind it, as Proxmox does it for sizes.
    var labelledConfig = function (isCreate) {
        return {
            xtype: 'fieldcontainer',
            layout: { type: 'hbox', align: 'middle' },
            fieldLabel: text('Full Every'),
            labelStyle: 'white-space:nowrap',
            items: [
                fieldConfig(isCreate),
                { xtype: 'box', hidden: true, padding: '0 0 0 5' },
            ],
            autoEl: {
                tag: 'div',
                'data-qtip': Ext.htmlEncode(
                    text('Days between full backups. Those between hold only what changed since the last full one.') +
                        ' ' + text('On Proxmox VE 8.4 and later those of running VMs read only what changed, if the job has fleecing (Advanced) and changed-blocks is set in /etc/pve/pve-diff-backup.conf; the log says why where everything was read.') +
                        ' ' + text('Not for Proxmox Backup Server.')
                ),
            },
        };
    };

    afterInit('PVE.dc.BackupEdit', function (win) {
        // both generations of this window end with a field named mode
        var mode = win.down('field[name=mode]');
        var owner = mode && mode.ownerCt;
        if (!owner || win.down('field[name=fullbackup]')) {
            return;
        }
        owner.insert(owner.items.indexOf(mode) + 1, labelledConfig(!win.jobid));
        var field = win.down('field[name=fullbackup]');
        var kept = '';
        watchStorage(win, function (reason) {
            var isUnfit = reason !== '';
            field.setEmptyText(reason || text('always full'));
            if (isUnfit === field.disabled) {
                return;
            }
            if (isUnfit) {
                kept = field.getValue();
                field.setValue('');
            } else if (kept !== null && kept !== '') {
                field.setValue(kept);
            }
            field.setDisabled(isUnfit);
        });
    });

    var renderDays = function (value) {
        return value > 0 ? Ext.htmlEncode(value + ' ' + dayText(value)) : text('always full');
    };

    afterInit('PVE.dc.BackupView', function (grid) {
        var columns = grid.headerCt.getGridColumns();
        var place = -1;
        var hides = false;
        Ext.Array.each(columns, function (column, index) {
            hides = hides || !!column.hidden;
            if (column.dataIndex === 'storage') {
                place = index + 1;
            }
        });
        grid.headerCt.insert(place < 0 ? columns.length : place, {
            header: text('Full Every'),
            dataIndex: 'fullbackup',
            width: 120,
            hidden: hides, // as the list's lesser columns are, where it has such
            renderer: renderDays,
        });
    });

    afterInit('PVE.dc.BackupInfo', function (panel) {
        var mode = panel.down('displayfield[name=mode]');
        var days = panel.record && panel.record.fullbackup;
        if (mode && days > 0) {
            mode.ownerCt.insert(mode.ownerCt.items.indexOf(mode) + 1, {
                xtype: 'displayfield',
                name: 'fullbackup',
                fieldLabel: text('Full Every'),
                value: days,
                renderer: renderDays,
            });
        }
    });

    // ---------------------------------------------------------------- backup now

    // What each choice sends; the default is the node's, from vzdump.conf.
    var KINDS = { full: 0, differential: 365 };

    afterInit('PVE.window.Backup', function (win) {
        var mode = win.down('field[name=mode]');
        var button = Ext.Array.filter(win.query('button'), function (b) {
            return b.text === text('Backup') && b.handler;
        })[0];
        if (!mode || !button) {
            return;
        }
        var owner = mode.ownerCt;
        var kind = owner.insert(owner.items.indexOf(mode) + 1, {
            xtype: 'combobox',
            name: 'fullbackupKind',
            fieldLabel: text('Kind'),
            submitValue: false,
            editable: false,
            queryMode: 'local',
            value: '',
            store: [
                ['', text('Default')],
                ['differential', text('Differential')],
                ['full', text('Full')],
            ],
            autoEl: {
                tag: 'div',
                'data-qtip': Ext.htmlEncode(text(
                    'Differential: only what changed since the last full backup of this guest; without a usable one a full backup is made.'
                ) + ' ' + text('Not for Proxmox Backup Server.')),
            },
        });
        watchStorage(win, function (reason) {
            kind.setDisabled(reason !== '');
        });

        // The handler puts together what it sends and sends it at once: ours is added on the way.
        var handler = button.handler;
        button.handler = function () {
            var days = kind.disabled ? undefined : KINDS[kind.getValue()];
            var self = this;
            var passed = arguments;
            return changingRequest(function (options) {
                if (days !== undefined && /\/vzdump$/.test(options.url) && options.params) {
                    options.params.fullbackup = days;
                }
            }, function () {
                return handler.apply(self, passed);
            });
        };
    });
})();
