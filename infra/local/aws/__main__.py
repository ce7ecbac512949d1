from ministack.app import main

from . import (
    api,
    cloudformation,
    dynamodb,
    faults,
    functions,
    iam,
    kms,
    pipes,
    scheduler,
    signatures,
)

first = (signatures, iam, kms, cloudformation, dynamodb)
for part in (*first, api, functions, pipes, scheduler, faults):
    part.install()
main()
