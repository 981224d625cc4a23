"""AWS's own managed policies that go with Lambda, as AWS publishes them, and the two everybody knows."""

from typing import Any, Final

import msgspec

from stoker.services.identity import ManagedPolicy, PolicyVersion

AWS: Final = "aws"

_CREATED_S: Final = 1_423_180_800.0

Statement = dict[str, Any]


def _allow(actions: list[str] | str, resource: Any = "*", **members: Any) -> Statement:
    return {"Effect": "Allow", "Action": actions, "Resource": resource, **members}


_LOGS: Final = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
_VPC: Final = [
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
]
_FULL: Final[list[Statement]] = [
    _allow(
        [
            "cloudformation:DescribeStacks",
            "cloudformation:ListStackResources",
            "cloudwatch:ListMetrics",
            "cloudwatch:GetMetricData",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
            "kms:ListAliases",
            "iam:GetPolicy",
            "iam:GetPolicyVersion",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:ListAttachedRolePolicies",
            "iam:ListRolePolicies",
            "iam:ListRoles",
            "lambda:*",
            "logs:DescribeLogGroups",
            "states:DescribeStateMachine",
            "states:ListStateMachines",
            "tag:GetResources",
            "xray:GetTraceSummaries",
            "xray:BatchGetTraces",
        ]
    ),
    _allow("iam:PassRole", Condition={"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}),
    _allow(
        ["logs:DescribeLogStreams", "logs:GetLogEvents", "logs:FilterLogEvents"],
        "arn:aws:logs:*:*:log-group:/aws/lambda/*",
    ),
]
_READ_ONLY: Final[list[Statement]] = [
    _allow(
        [
            "cloudformation:DescribeStacks",
            "cloudformation:ListStackResources",
            "cloudwatch:GetMetricData",
            "cloudwatch:ListMetrics",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
            "kms:ListAliases",
            "iam:GetPolicy",
            "iam:GetPolicyVersion",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:ListAttachedRolePolicies",
            "iam:ListRolePolicies",
            "iam:ListRoles",
            "logs:DescribeLogGroups",
            "lambda:Get*",
            "lambda:List*",
            "states:DescribeStateMachine",
            "states:ListStateMachines",
            "tag:GetResources",
            "xray:GetTraceSummaries",
            "xray:BatchGetTraces",
        ]
    ),
    _allow(
        ["logs:DescribeLogStreams", "logs:GetLogEvents", "logs:FilterLogEvents"],
        "arn:aws:logs:*:*:log-group:/aws/lambda/*",
    ),
]

_DOCUMENTS: Final[dict[str, list[Statement]]] = {
    "/AdministratorAccess": [_allow("*")],
    "/AWSLambda_FullAccess": _FULL,
    "/AWSLambda_ReadOnlyAccess": _READ_ONLY,
    "/AWSLambdaExecute": [
        _allow("logs:*", "arn:aws:logs:*:*:*"),
        _allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::*"),
    ],
    "/service-role/AWSLambdaBasicExecutionRole": [_allow(_LOGS)],
    "/service-role/AWSLambdaVPCAccessExecutionRole": [_allow([*_LOGS, *_VPC])],
    "/service-role/AWSLambdaENIManagementAccess": [_allow(_VPC)],
    "/service-role/AWSLambdaRole": [_allow(["lambda:InvokeFunction"])],
    "/service-role/AWSLambdaSQSQueueExecutionRole": [
        _allow(["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", *_LOGS])
    ],
    "/service-role/AWSLambdaKinesisExecutionRole": [
        _allow(
            [
                "kinesis:DescribeStream",
                "kinesis:DescribeStreamSummary",
                "kinesis:GetRecords",
                "kinesis:GetShardIterator",
                "kinesis:ListShards",
                "kinesis:ListStreams",
                "kinesis:SubscribeToShard",
                *_LOGS,
            ]
        )
    ],
    "/service-role/AWSLambdaDynamoDBExecutionRole": [
        _allow(
            [
                "dynamodb:DescribeStream",
                "dynamodb:GetRecords",
                "dynamodb:GetShardIterator",
                "dynamodb:ListStreams",
                *_LOGS,
            ]
        )
    ],
    "/service-role/AWSLambdaMSKExecutionRole": [
        _allow(
            [
                "kafka:DescribeCluster",
                "kafka:DescribeClusterV2",
                "kafka:GetBootstrapBrokers",
                *_VPC[:4],
                "ec2:DescribeVpcs",
                "ec2:DescribeSecurityGroups",
                *_LOGS,
            ]
        )
    ],
}


def _managed(place: str, statements: list[Statement]) -> ManagedPolicy:
    path, _, name = place.rpartition("/")
    document = msgspec.json.encode({"Version": "2012-10-17", "Statement": statements}).decode()
    return ManagedPolicy(
        name=name,
        path=f"{path}/",
        account=AWS,
        unique_id="ANPA" + name.upper().replace("_", "")[:17].ljust(17, "X"),
        created_at_s=_CREATED_S,
        updated_at_s=_CREATED_S,
        default_version="v1",
        versions=(PolicyVersion(version_id="v1", document=document, created_at_s=_CREATED_S),),
    )


AWS_MANAGED: Final = tuple(_managed(place, statements) for place, statements in _DOCUMENTS.items())
