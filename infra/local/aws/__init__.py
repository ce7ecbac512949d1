"""The local AWS: ministack, changed to behave as AWS does where Coffer depends on it.

ministack 1.5.33 serves AWS's APIs from one process. Run it as `python -m aws`.

| module           | what it adds or changes                                        |
|------------------|----------------------------------------------------------------|
| `signatures`     | verifies the signature of every caller                         |
| `iam`            | condition keys, resources and principals                       |
| `kms`            | integrity checks, size limits, ReEncrypt, rotation of a key    |
| `dynamodb`       | order and projection of indexes, segments of a parallel scan   |
| `api`            | routes, paths and limits of an HTTP API                        |
| `functions`      | updates of a function do not block other requests              |
| `pipes`          | filters, input templates, and an event bus as the target       |
| `scheduler`      | context attributes of a schedule                               |
| `cloudformation` | Fn::Join in conditions                                         |
| `faults`         | failures on demand, and a count of calls                       |

All of them replace private functions of ministack, so they work with the pinned version only.
"""
