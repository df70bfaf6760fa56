#!/bin/sh
# Tries the prebuilt program: try_binary.sh ODFS CLIPS FOLDER, with src.mp4 and dst.mp4 in CLIPS.
# Extracts 8 frames of each, trains 20 iterations, converts, asks the studio for its page.
set -eu
odfs=$1 clips=$2 folder=$3

mkdir -p "$folder"
cp "$clips/src.mp4" "$clips/dst.mp4" "$folder"
"$odfs" --version
"$odfs" extract workspace="$folder" data=src_dst frames=0-7
"$odfs" train workspace="$folder" experiment=demo iterations=20 optimizer.warmup=5
"$odfs" convert workspace="$folder" data=dst output.path="$folder/result.mp4"
"$odfs" verify "$folder/result.mp4"

"$odfs" studio workspace="$folder" server.port=8321 2>"$folder/studio.log" &
studio=$!
trap 'kill $studio' EXIT
for _ in $(seq 60); do
    grep -q "studio: http" "$folder/studio.log" && break
    sleep 1
done
cat "$folder/studio.log"
grep -q "studio: http" "$folder/studio.log"
if command -v curl >/dev/null; then # which a bare system lacks
    curl --fail --silent --show-error --output "$folder/page.html" http://127.0.0.1:8321/
    grep -q "odfs-jax studio" "$folder/page.html"
fi
