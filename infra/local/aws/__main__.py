from ministack.app import main

from . import api, dynamodb, faults, functions, iam, kms, pipes, scheduler, signatures

for part in (signatures, iam, kms, dynamodb, api, functions, pipes, scheduler, faults):
    part.install()
main()
