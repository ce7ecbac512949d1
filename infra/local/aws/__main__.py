from ministack.app import main

from . import api, dynamodb, faults, iam, kms, pipes, scheduler

for part in (iam, kms, dynamodb, api, pipes, scheduler, faults):
    part.install()
main()
