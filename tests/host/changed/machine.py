# Appended to the stand-in for kvm that puts a real QEMU behind Proxmox VE (kvm-qemu of $PVE_HOST/fakebin): what happens
# to a VM beside backups, by QEMU's own commands.  As QMP commands:
#   test-migrate        a live migration to another QEMU process, dirty bitmaps included, as Proxmox VE does it
#   test-save PATH      the running state into a file, as for a snapshot with RAM
#   test-plug KEY IMAGE, test-unplug KEY    a SCSI disk comes and goes
# FAKE_KVM_STATE=PATH: the VM starts from that state.

RAW_POPEN = subprocess.Popen


class Current:
    """The QEMU that runs the VM: after a migration it is another process."""

    def __init__(self):
        self.process = None

    def wait(self):
        while True:
            process = self.process
            process.wait()
            if process is self.process:
                return

    def kill(self):
        self.process.kill()

    def poll(self):
        return self.process.poll()


class TestMachine(Machine):
    incoming = False

    @property
    def qemu(self):
        return self.current

    @qemu.setter
    def qemu(self, process):
        self.__dict__.setdefault("current", Current()).process = process

    def start_qemu(self, throttles):
        state = os.environ.get("FAKE_KVM_STATE") if "current" not in self.__dict__ else None
        more = ["-incoming", "defer"] if self.incoming or state else []

        def start(cmd, **options):
            # the signal would come when the thread ends that started it
            return RAW_POPEN((cmd[3:] if self.incoming else cmd) + more, **options)
        subprocess.Popen = start
        try:
            super().start_qemu(throttles)
        finally:
            subprocess.Popen = RAW_POPEN
        capabilities(self.qmp)
        if state:
            self.qmp("migrate-incoming", uri=f"exec:cat {state}")
            arrived(self.qmp)

    def throttles(self):
        return {f"drive-{key}": self.throttle(key) for key, _ in self.disks}

    def qmp_test_migrate(self, a, fds):
        old, process = self.qmp, self.current.process
        self.incoming = True
        self.start_qemu(self.throttles())
        path = f"{RUN}/{self.vmid}.migration"
        if os.path.exists(path):
            os.unlink(path)
        self.qmp("migrate-incoming", uri=f"unix:{path}")
        old("migrate", uri=f"unix:{path}")
        left(old)
        arrived(self.qmp)
        process.kill()
        self.access = Access(self.qmp, self.throttles())
        return {}

    def qmp_test_save(self, a, fds):
        self.qmp("migrate", uri=f"exec:cat > {a['path']}")
        left(self.qmp)
        self.qmp("cont")  # gives it its disks back
        self.qmp("stop")
        return {}

    def qmp_test_plug(self, a, fds):
        key, image = a["key"], a["image"]
        file = {"driver": "file", "node-name": f"e{key}", "filename": image, "locking": "off", "discard": "unmap"}
        raw = {"driver": "raw", "node-name": f"f{key}", "file": file, "discard": "unmap"}
        self.qmp.send("object-add", {"qom-type": "throttle-group", "id": f"throttle-drive-{key}"})
        self.qmp.send("blockdev-add", {**self.throttle(key), "file": raw})
        self.qmp.send("device_add", {"driver": "scsi-hd", "bus": "scsihw0.0", "scsi-id": key[4:],
                                     "drive": f"drive-{key}", "id": key})
        self.disks.append((key, image))
        self.access.throttles[f"drive-{key}"] = self.throttle(key)
        return {}

    def qmp_test_unplug(self, a, fds):
        key = a["key"]
        self.qmp("device_del", id=key)
        for _ in range(500):
            try:
                self.qmp("blockdev-del", node_name=f"drive-{key}")
                break
            except QMPError:
                time.sleep(0.01)
        self.qmp.send("object-del", {"id": f"throttle-drive-{key}"})
        self.disks = [disk for disk in self.disks if disk[0] != key]
        del self.access.throttles[f"drive-{key}"]
        return {}


def capabilities(qmp):
    qmp("migrate-set-capabilities", capabilities=[{"capability": "dirty-bitmaps", "state": True}])


def left(qmp):
    while (now := qmp("query-migrate").get("status")) != "completed":
        if now == "failed":
            raise QMPError(f"migration failed: {qmp('query-migrate')}")
        time.sleep(0.01)


def arrived(qmp):
    while qmp("query-status")["status"] == "inmigrate":
        time.sleep(0.01)


Machine = TestMachine
