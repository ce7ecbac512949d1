from ministack.app import main

from . import api, dynamodb, faults, iam, kms, pipes

for part in (iam, kms, dynamodb, api, pipes, faults):
    part.install()
main()
