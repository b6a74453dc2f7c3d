#!/usr/bin/env bash
# kubernetes-validate 1.37.0 (PyPI): a resource whose kind or version no schema has passes, also with `--strict`. The
# exit status is 0 and stderr is empty; one line that begins with WARN goes to stdout, and none with `--no-warn`. So a
# typing error in `kind` or `apiVersion` switches all checks of a manifest off, where one in any other field is found.
#
# Seen, for a Job with a field that does not exist: status 1 as it is, status 0 with `kind: Jbo`, and status 0 with
# `apiVersion: batch/v2`. A check must look for "passed for resource" and not for the status.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check kubernetes-validate==1.37.0
cat > "$folder/job.yaml" << 'END'
apiVersion: batch/v1
kind: Job
metadata:
  name: job
spec:
  noSuchField: 1
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: main
          image: image
END
check() {
  local status=0
  "$folder/venv/bin/kubernetes-validate" --strict "$folder/planted.yaml" > "$folder/said" 2> "$folder/error" || status=$?
  echo "$1: status $status, $(cut -d ' ' -f 1 "$folder/said" | sort | uniq -c | xargs), $(wc -c < "$folder/error") bytes of stderr"
}
{
  cp "$folder/job.yaml" "$folder/planted.yaml"
  check "a wrong field"
  sed 's/^kind: .*/kind: Jbo/' "$folder/job.yaml" > "$folder/planted.yaml"
  check "and a wrong kind"
  sed 's/^apiVersion: .*/apiVersion: batch\/v2/' "$folder/job.yaml" > "$folder/planted.yaml"
  check "and a wrong version"
} | tee "$folder/seen"
diff "$folder/seen" - << 'END'
a wrong field: status 1, 1 ERROR, 0 bytes of stderr
and a wrong kind: status 0, 1 WARN, 0 bytes of stderr
and a wrong version: status 0, 1 WARN, 0 bytes of stderr
END
