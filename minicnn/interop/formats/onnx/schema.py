"""The messages of ONNX (onnx/onnx.proto) as tables for wire.py, and its types of elements."""

STRING_ENTRY = {1: ("key", "text"), 2: ("value", "text")}
TENSOR = {1: ("dims", "ints"), 2: ("data_type", "int"), 4: ("float_data", "floats"), 5: ("int32_data", "bytes"),
          6: ("string_data", ["bytes"]), 7: ("int64_data", "bytes"), 8: ("name", "text"), 9: ("raw_data", "bytes"),
          10: ("double_data", "doubles"), 11: ("uint64_data", "bytes"), 13: ("external_data", [STRING_ENTRY]),
          14: ("data_location", "int")}
DIMENSION = {1: ("value", "int"), 2: ("param", "text")}
VALUE_INFO = {1: ("name", "text"), 2: ("type", {1: ("tensor", {1: ("elem_type", "int"), 2: ("shape", {
    1: ("dim", [DIMENSION])})})})}
GRAPH: dict = {2: ("name", "text"), 5: ("initializer", [TENSOR]), 11: ("input", [VALUE_INFO]),
               12: ("output", [VALUE_INFO]), 15: ("sparse_initializer", ["bytes"])}
ATTRIBUTE = {1: ("name", "text"), 2: ("f", "float"), 3: ("i", "int"), 4: ("s", "text"), 5: ("t", TENSOR),
             6: ("g", GRAPH), 7: ("floats", "floats"), 8: ("ints", "ints"), 9: ("strings", ["text"]),
             20: ("type", "int"), 21: ("ref_attr_name", "text"), 22: ("sparse_tensor", "bytes")}
NODE = {1: ("input", ["text"]), 2: ("output", ["text"]), 3: ("name", "text"), 4: ("op_type", "text"),
        5: ("attribute", [ATTRIBUTE]), 7: ("domain", "text")}
GRAPH[1] = ("node", [NODE])
OPSET = {1: ("domain", "text"), 2: ("version", "int")}
FUNCTION = {1: ("name", "text"), 10: ("domain", "text")}
MODEL = {1: ("ir_version", "int"), 2: ("producer_name", "text"), 3: ("producer_version", "text"), 7: ("graph", GRAPH),
         8: ("opset_import", [OPSET]), 14: ("metadata_props", [{1: ("key", "text"), 2: ("value", "bytes")}]),
         20: ("training_info", ["bytes"]),
         25: ("functions", [FUNCTION])}

# TensorProto.data_type -> our name of it (stored.DTYPES)
TYPES = {1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64",
         12: "U32", 13: "U64", 16: "BF16"}
FIELDS = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data"}   # else int32_data
NEWEST_OPSET = 28               # the operators below were read up to here
