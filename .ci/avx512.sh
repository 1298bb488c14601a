#!/usr/bin/env bash
# .ci/avx512.sh DIR: the AVX-512 kernels of train/cpu on a machine without AVX-512: their tests in an emulated one (Bochs, which
# boots Debian's kernel for virtual machines from a CD with nothing on it but the tests). DIR is for what it makes. On a processor
# that has AVX-512 the tests of ./train/cpu run those kernels anyway.
set -euo pipefail

tests='TestKernelsAgreeToTheBit|TestTilesRefuse|TestNaNGoes|TestMatmulGoesOn|TestGatherTiles|TestForwardOneRow|TestTheSameBits|TestAStepByHand|TestChooseKernels'
have=$(go test ./train/cpu -list .)
for t in ${tests//|/ }; do # one that has another name by now would be left out in silence
	grep -q "^$t" <<<"$have" || { echo "no test of ./train/cpu begins with $t" >&2; exit 1; }
done
if [[ $(grep -owE 'avx512(f|dq|vl|bw)' /proc/cpuinfo | sort -u | wc -l) == 4 ]]; then
	ONMART_CPU=avx512 go test ./train/cpu -run "$tests"
	exit
fi
packages="bochs bochs-term bochsbios vgabios isolinux syslinux-common xorriso cpio"
for p in $packages; do
	dpkg -s "$p" >/dev/null 2>&1 || missing+=" $p"
done
if [[ -n ${missing:-} ]]; then
	apt-get update -qq
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
dir=$1
mkdir -p "$dir/root"/{bin,proc,dev,tmp} "$dir/cd/isolinux" "$dir/kernel"
CGO_ENABLED=0 go build -o "$dir/root/init" ./.ci/avx512
CGO_ENABLED=0 go test -c -o "$dir/root/bin/cpu.test" ./train/cpu
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
(cd "$dir/kernel" && apt-get download -q "$kernel" 2>/dev/null >&2 && dpkg -x "$kernel"_*.deb .)
cp "$dir"/kernel/boot/vmlinuz-* "$dir/cd/vmlinuz"
(cd "$dir/root" && find . | cpio -o -H newc --quiet) >"$dir/cd/initrd"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$dir/cd/isolinux/"
# Without xsaves: the emulator and the kernel disagree on the size of its area, and the kernel would turn vectors off.
cat >"$dir/cd/isolinux/isolinux.cfg" <<CFG
default tests
label tests
 kernel /vmlinuz
 append initrd=/initrd console=ttyS0,115200 nokaslr mitigations=off lpj=1000000 tsc=reliable no_timer_check nosmp acpi=off pci=off rdinit=/init clearcpuid=xsaves,xsavec loglevel=4 TESTS=$tests
CFG
xorriso -as mkisofs -quiet -o "$dir/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
	-boot-info-table "$dir/cd" 2>/dev/null
cat >"$dir/bochsrc" <<CFG
cpu: model=corei7_skylake_x, count=1, ips=100000000
memory: guest=1024, host=1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$dir/cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$dir/serial.txt
display_library: rfb, options="timeout=0"
log: $dir/log.txt
panic: action=fatal
error: action=ignore
info: action=ignore
clock: sync=none
CFG
echo c >"$dir/go"
# The emulator does not end by itself where nothing turns its power off.
timeout 900 bochs -q -f "$dir/bochsrc" -rc "$dir/go" </dev/zero >"$dir/bochs.txt" 2>&1 &
emulator=$!
for _ in $(seq 900); do
	if grep -qa 'tests ended' "$dir/serial.txt" 2>/dev/null || ! kill -0 $emulator 2>/dev/null; then break; fi
	sleep 1
done
kill $emulator 2>/dev/null || true
pkill -P $emulator 2>/dev/null || true
grep -a -E '^(---|    |panic|FAIL|PASS|tests ended)' "$dir/serial.txt" || true
grep -qa 'tests ended: <nil>' "$dir/serial.txt" || { tail -n 20 "$dir/serial.txt"; exit 1; }
grep -qa 'cpu-avx512' "$dir/serial.txt" || { echo "the emulated processor did not take the AVX-512 kernels"; exit 1; }
