from ministack.app import main

from . import api, dynamodb, faults, iam, kms

for part in (iam, kms, dynamodb, api, faults):
    part.install()
main()
