from ministack.app import main

from . import api, faults, iam, kms

for part in (iam, kms, api, faults):
    part.install()
main()
